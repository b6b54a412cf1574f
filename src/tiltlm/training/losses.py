"""From log-probabilities of micro-batches to losses, and back to gradients, also where the whole batch is coupled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.loading import autocast
from tiltlm.model.scorer import Scorer, sequence_logps
from tiltlm.model.scoring import totals
from tiltlm.objectives.interface import MISMATCHED, LossOutput, Needs, Objective, Scored
from tiltlm.plan.batches import MicroBatch, Plan


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """What the objective was given of some examples, and what it made of it."""

    scored: Scored
    output: LossOutput


@dataclass(frozen=True, slots=True)
class BoundObjective:
    """An objective with its settings: all that a step must know of the loss.

    running: the values of the statistics that it keeps, see `Running`: those of now.
    """

    objective: Objective
    settings: Any
    running: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = self.objective.running
        if kept is not None and not self.running:
            start = {name: torch.tensor(value) for name, value in kept.start(self.settings).items()}
            object.__setattr__(self, "running", start)

    @property
    def needs(self) -> Needs:
        """What a run must provide for it."""
        return self.objective.needs

    def units(self, plan: Plan) -> int:
        """By how much the sum of a plan's losses is divided: the number of examples, or of labelled completions."""
        return plan.completions if self.needs.unit == "completion" else plan.examples

    def tokens_per_unit(self, plan: Plan) -> float:
        """See `Scored.tokens_per_unit`."""
        return plan.tokens / self.units(plan)

    def moved(self, scored: Scored) -> Scored:
        """The same with statistics moved by this batch, which is a whole one."""
        kept = self.objective.running
        return scored if kept is None else replace(scored, running=kept.moved(scored, self.settings))

    def with_running(self, values: Mapping[str, Tensor]) -> BoundObjective:
        """The same with other values of its statistics; those that are not given stay as they are."""
        return replace(self, running={name: values.get(name, value) for name, value in self.running.items()})

    def _running_beside(self, logps: Tensor) -> dict[str, Tensor]:
        return {name: value.to(logps.device, logps.dtype) for name, value in self.running.items()}

    def __call__(self, scored: Scored) -> LossOutput:
        output: LossOutput = self.objective.loss(scored, self.settings)
        return output

    def scored(self, batches: Sequence[MicroBatch], logps_S: Sequence[Tensor], plan: Plan | None = None) -> Scored:
        """What the objective sees of micro-batches whose scored tokens have these log-probabilities.

        plan: the whole plan that they are of; None where they are all of it.
        """
        parts = [self._of_one(batch, logps) for batch, logps in zip(batches, logps_S, strict=True)]
        together = parts[0] if len(parts) == 1 else _joined(parts)
        tokens_per_unit = self.tokens_per_unit(plan or whole_plan(batches))
        return replace(together, tokens_per_unit=tokens_per_unit, running=self._running_beside(together.logps_N))

    def _of_one(self, batch: MicroBatch, logps_S: Tensor) -> Scored:
        needs = self.needs
        reference_S = batch.reference_S if needs.reference else None
        sums = Scored(
            logps_N=sequence_logps(logps_S, batch),
            tokens_N=batch.tokens_N,
            labels_N=batch.labels_N,
            reference_logps_N=None if reference_S is None else sequence_logps(reference_S, batch),
        )
        if not needs.tokens:
            return sums
        return replace(
            sums,
            token_logps_T=logps_S,
            reference_token_logps_T=reference_S,
            sequence_T=batch.score_sequence_S,
            offset_T=batch.offset_S,
        )

    def scored_columns(
        self,
        columns: TokenColumns,
        values: np.ndarray,
        reference: np.ndarray | None,
        dtype: torch.dtype = torch.float64,
    ) -> Scored:
        """What the objective sees of all examples of the columns, in their order.

        Args:
            values, reference: log-probabilities of all scored tokens under the policy and the reference, in nats; sums
                are those of float32.
        """
        needs = self.needs
        reference = reference if needs.reference else None
        counts, labelled = columns.scored_tokens, columns.labels != MISMATCHED
        units = int(labelled.sum()) if needs.unit == "completion" else len(columns)
        tokens: dict[str, Any] = {}
        if needs.tokens:
            tokens = {
                "token_logps_T": torch.from_numpy(values).to(dtype),
                "reference_token_logps_T": None if reference is None else torch.from_numpy(reference).to(dtype),
                "sequence_T": torch.from_numpy(np.repeat(np.arange(columns.sequences), counts)),
                "offset_T": torch.from_numpy(np.arange(len(values)) - np.repeat(columns.scored_starts[:-1], counts)),
            }
        logps_N = torch.from_numpy(totals(values, columns)).to(dtype)
        return Scored(
            logps_N=logps_N,
            tokens_N=torch.from_numpy(counts),
            labels_N=torch.from_numpy(np.array(columns.labels)),
            reference_logps_N=None if reference is None else torch.from_numpy(totals(reference, columns)).to(dtype),
            tokens_per_unit=int(counts[labelled].sum()) / units,
            running=self._running_beside(logps_N),
            **tokens,
        )


def whole_plan(batches: Sequence[MicroBatch]) -> Plan:
    """The plan that consists of these micro-batches."""
    labelled = [batch.labels_N != MISMATCHED for batch in batches]
    return Plan(
        tuple(batches),
        sum(len(batch.examples) for batch in batches),
        sum(int(own.sum()) for own in labelled),
        sum(int(batch.tokens_N[own].sum()) for batch, own in zip(batches, labelled, strict=True)),
    )


def _joined(parts: Sequence[Scored]) -> Scored:
    """Scored sequences of several micro-batches, one after another."""
    firsts = [0]
    for part in parts:
        firsts.append(firsts[-1] + len(part.logps_N))

    def joined(values: Sequence[Tensor | None]) -> Tensor | None:
        there = [value for value in values if value is not None]
        return torch.cat(there) if len(there) == len(values) else None

    sequences = [
        None if part.sequence_T is None else part.sequence_T + first for part, first in zip(parts, firsts, strict=False)
    ]
    return Scored(
        logps_N=torch.cat([part.logps_N for part in parts]),
        tokens_N=torch.cat([part.tokens_N for part in parts]),
        labels_N=torch.cat([part.labels_N for part in parts]),
        reference_logps_N=joined([part.reference_logps_N for part in parts]),
        token_logps_T=joined([part.token_logps_T for part in parts]),
        reference_token_logps_T=joined([part.reference_token_logps_T for part in parts]),
        sequence_T=joined(sequences),
        offset_T=joined([part.offset_T for part in parts]),
    )


def evaluated(scorer: Scorer, plan: Plan, objective: BoundObjective, precision: torch.dtype) -> Iterator[Losses]:
    """Losses of a plan without gradients: by micro-batch, or all at once where the objective couples them."""
    with torch.no_grad():
        if not objective.needs.coupled:
            for on_host in plan.micro_batches:
                batch = on_host.to(scorer.device)
                scored = objective.scored([batch], [_logps(scorer, batch, precision)], plan)
                yield Losses(scored, objective(scored))
            return
        batches = [batch.to(scorer.device) for batch in plan.micro_batches]
        scored = objective.scored(batches, [_logps(scorer, batch, precision) for batch in batches], plan)
        yield Losses(scored, objective(scored))


def at_reference(plan: Plan, objective: BoundObjective) -> Iterator[Losses]:
    """Losses of a plan if the policy were the reference, without a forward pass."""
    together = objective.needs.coupled
    for group in [plan.micro_batches] if together else [(batch,) for batch in plan.micro_batches]:
        values = [batch.reference_S for batch in group if batch.reference_S is not None]
        scored = objective.scored(group, values, plan)
        yield Losses(scored, objective(scored))


def backward(
    scorer: Scorer, plan: Plan, objective: BoundObjective, precision: torch.dtype, seen: Callable[[Losses], None]
) -> Mapping[str, Tensor]:
    """Adds the gradient of a plan's mean loss to the weights'; `seen` is given the losses as they come.

    The loss is the sum over units divided by their number in the whole plan, known before any backward pass, so
    micro-batches change nothing. An objective that couples the batch has its gradient taken over all of it: every
    micro-batch is scored once without gradients, the loss and its slope by every log-probability are taken, and a
    second pass carries those slopes to the weights (gradient caching, arXiv 2101.06983). One micro-batch needs no
    second pass.

    Returns:
        The objective's statistics, moved by the plan; they are its own once they are put into it.
    """
    assert objective.objective.running is None or objective.needs.coupled
    units = objective.units(plan)
    if not objective.needs.coupled or len(plan.micro_batches) == 1:
        for on_host in plan.micro_batches:
            batch = on_host.to(scorer.device)
            scored = objective.moved(objective.scored([batch], [_logps(scorer, batch, precision)], plan))
            losses = Losses(scored, objective(scored))
            (losses.output.losses_U.sum() / units).backward()
            seen(losses)
        return scored.running
    batches = [batch.to(scorer.device) for batch in plan.micro_batches]
    with torch.no_grad():
        values = [_logps(scorer, batch, precision) for batch in batches]
    leaves = [value.requires_grad_() for value in values]
    scored = objective.moved(objective.scored(batches, leaves, plan))
    losses = Losses(scored, objective(scored))
    slopes = torch.autograd.grad(losses.output.losses_U.sum() / units, leaves)
    seen(losses)
    for batch, slope_S in zip(batches, slopes, strict=True):
        torch.autograd.backward(_logps(scorer, batch, precision), slope_S)
    return scored.running


def _logps(scorer: Scorer, batch: MicroBatch, precision: torch.dtype) -> Tensor:
    with autocast(scorer.device, precision):
        logps_S: Tensor = scorer(batch)
    return logps_S
