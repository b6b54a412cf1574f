"""An objective with its settings, and what it sees of micro-batches of scored tokens, or of columns of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.model.loading import autocast
from tiltlm.model.scorer import Asked, Scorer, sequence_logps
from tiltlm.model.scoring import totals
from tiltlm.model.token_values import Columns, TokenValues, logps_of
from tiltlm.objectives.interface import MISMATCHED, LossOutput, Needs, Objective, ReferenceUpdate, Scored
from tiltlm.plan.batches import MicroBatch, Plan
from tiltlm.plan.packing import lists_of


@dataclass(frozen=True, slots=True)
class BoundObjective:
    """An objective with its settings: all that a step must know of the loss.

    reference: the reference as a model at work, where the objective wants one.
    running: the values of the statistics that it keeps, see `Running`: those of now.
    """

    objective: Objective
    settings: Any
    reference: Scorer | None = None
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

    @property
    def moves(self) -> ReferenceUpdate | None:
        """How the reference moves; None where it stays what it was."""
        return None if self.objective.moves is None else self.objective.moves(self.settings)

    @property
    def columns(self) -> Columns:
        """What arrays of scored tokens must hold for it."""
        return Columns(squares=self.needs.squares, divergence=self.needs.live)

    def values(self, scorer: Scorer, batch: MicroBatch, precision: torch.dtype) -> TokenValues:
        """What it must know of a batch's scored tokens, in this arithmetic; `batch` is on the scorer's device."""
        with autocast(scorer.device, precision):
            asked = asked_by(self, self.reference)
            if asked is None:
                return TokenValues(scorer(batch))
            values: TokenValues = scorer(batch, asked=asked)
        return values

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
        # A copy to a device waits for nothing; one from a device is read at once, and must have come.
        waits = logps.device.type == "cpu"
        return {
            name: value.to(logps.device, logps.dtype, non_blocking=not waits) for name, value in self.running.items()
        }

    def __call__(self, scored: Scored) -> LossOutput:
        output: LossOutput = self.objective.loss(scored, self.settings)
        return output

    def scored(
        self,
        batches: Sequence[MicroBatch],
        values: Sequence[TokenValues],
        plan: Plan | None = None,
        ranks: Ranks = ALONE,
    ) -> Scored:
        """What the objective sees of micro-batches whose scored tokens have these values, fillers left out.

        plan: the whole plan that they are of; None where they are all of it.
        ranks: those whose micro-batches are wanted too, one rank's after another's; only this one's have gradients.
        """
        parts = [self._of_one(batch, own) for batch, own in zip(batches, values, strict=True) if not batch.filler]
        if ranks.several:
            every = ranks.gathered([_each(part, lambda tensor: tensor.detach().cpu()) for part in parts])
            device = batches[0].tokens_N.device
            received = [[_each(part, lambda tensor: tensor.to(device)) for part in some] for some in every]
            received[ranks.rank] = parts
            parts = list(itertools.chain.from_iterable(received))
        together = parts[0] if len(parts) == 1 else _joined(parts)
        tokens_per_unit = self.tokens_per_unit(plan or whole_plan(batches))
        return replace(together, tokens_per_unit=tokens_per_unit, running=self._running_beside(together.logps_N))

    def _of_one(self, batch: MicroBatch, values: TokenValues) -> Scored:
        needs, logps_S = self.needs, values.logps_S
        known_S = batch.reference_S if self.reference is None else values.reference_S
        reference_S = known_S if needs.reference else None
        sums = Scored(
            logps_N=sequence_logps(logps_S, batch),
            tokens_N=batch.tokens_N,
            labels_N=batch.labels_N,
            reference_logps_N=None if reference_S is None else sequence_logps(reference_S, batch),
            scores_N=batch.scores_N.to(logps_S.dtype) if needs_scores(needs) else None,
            list_UK=batch.list_UK if needs.unit == "list" else None,
        )
        if not needs.of_tokens:
            return sums
        return replace(
            sums,
            token_logps_T=logps_S if needs.tokens else None,
            reference_token_logps_T=reference_S if needs.tokens else None,
            sequence_T=batch.score_sequence_S,
            offset_T=batch.offset_S,
            log_squares_T=values.log_squares_S,
            credit_T=_needed_credit(batch.credit_S, logps_S.dtype) if needs.credit else None,
            reference_kl_T=values.divergence_S,
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
            values, reference: values of all scored tokens under the policy (see `columns`), and log-probabilities under
                the reference, in nats; sums are those of float32.
        """
        needs = self.needs
        reference = reference if needs.reference else None
        counts, labelled = columns.scored_tokens, columns.labels != MISMATCHED
        units = int(labelled.sum()) if needs.unit == "completion" else len(columns)
        tokens: dict[str, Any] = {}
        if needs.of_tokens:
            own = self.columns.values(values, dtype)
            others = None if reference is None else torch.from_numpy(reference).to(dtype)
            tokens = {
                "token_logps_T": own.logps_S if needs.tokens else None,
                "reference_token_logps_T": others if needs.tokens else None,
                "sequence_T": torch.from_numpy(np.repeat(np.arange(columns.sequences), counts)),
                "offset_T": torch.from_numpy(np.arange(len(values)) - np.repeat(columns.scored_starts[:-1], counts)),
                "log_squares_T": own.log_squares_S,
                "credit_T": _needed_credit(_as_tensor(columns.credit), dtype) if needs.credit else None,
                "reference_kl_T": own.divergence_S,
            }
        logps_N = torch.from_numpy(totals(logps_of(values), columns)).to(dtype)
        return Scored(
            logps_N=logps_N,
            tokens_N=torch.from_numpy(counts),
            labels_N=torch.from_numpy(np.array(columns.labels)),
            reference_logps_N=None if reference is None else torch.from_numpy(totals(reference, columns)).to(dtype),
            scores_N=torch.from_numpy(np.array(columns.scores)).to(dtype) if needs_scores(needs) else None,
            list_UK=torch.from_numpy(lists_of(np.diff(columns.members), columns.scores))
            if needs.unit == "list"
            else None,
            tokens_per_unit=int(counts[labelled].sum()) / units,
            running=self._running_beside(logps_N),
            **tokens,
        )


def needs_scores(needs: Needs) -> bool:
    """Whether scores are handed over: where the objective reads them, and with every list."""
    return needs.scores != "none" or needs.unit == "list"


def _as_tensor(values: np.ndarray | None) -> Tensor | None:
    return None if values is None else torch.from_numpy(np.ascontiguousarray(values))


def _needed_credit(credit: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What tokens did for their answers' scores, which an objective reads."""
    if credit is None:
        raise ValueError("the objective reads credit by token, and the examples have none: see training.credit")
    return credit.to(dtype)


def whole_plan(batches: Sequence[MicroBatch]) -> Plan:
    """The plan that consists of these micro-batches."""
    labelled = [batch.labels_N != MISMATCHED for batch in batches]
    return Plan(
        tuple(batches),
        sum(len(batch.examples) for batch in batches),
        sum(int(own.sum()) for own in labelled),
        sum(int(batch.tokens_N[own].sum()) for batch, own in zip(batches, labelled, strict=True)),
    )


def asked_by(objective: BoundObjective, reference: Scorer | None) -> Asked | None:
    """What an objective wants to know of scored tokens besides log-probabilities, with a reference at work if one is
    given; None: nothing."""
    needs = objective.needs
    if reference is None and not needs.squares and not needs.live:
        return None
    assert reference is not None or not needs.live
    return Asked(needs.squares, reference, divergence=needs.live)


def _each(part: Scored, change: Callable[[Tensor], Tensor]) -> Scored:
    """The same with its tensors changed, before it has statistics."""
    held = {own.name: getattr(part, own.name) for own in fields(part)}
    changed: dict[str, Any] = {name: change(value) for name, value in held.items() if isinstance(value, Tensor)}
    return replace(part, **changed)


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
        log_squares_T=joined([part.log_squares_T for part in parts]),
        credit_T=joined([part.credit_T for part in parts]),
        reference_kl_T=joined([part.reference_kl_T for part in parts]),
        scores_N=joined([part.scores_N for part in parts]),
        list_UK=_joined_lists([part.list_UK for part in parts], firsts),
    )


def _joined_lists(parts: Sequence[Tensor | None], firsts: Sequence[int]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    if not there:
        return None
    most = max(part.shape[1] for part in there)
    numbered = [part.where(part < 0, part + first) for part, first in zip(there, firsts, strict=False)]
    return torch.cat([F.pad(part, (0, most - part.shape[1]), value=-1) for part in numbered])
