"""From log-probabilities of micro-batches to losses, and back to gradients, also where the whole batch is coupled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.distributed.sharding import in_turn
from tiltlm.model.scorer import Scorer
from tiltlm.model.token_values import TokenValues
from tiltlm.objectives.interface import LossOutput, Scored
from tiltlm.plan.batches import Plan
from tiltlm.training.bound_objective import BoundObjective


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """What the objective was given of some examples, and what it made of it."""

    scored: Scored
    output: LossOutput


def evaluated(
    scorer: Scorer, plan: Plan, objective: BoundObjective, precision: torch.dtype, ranks: Ranks = ALONE
) -> Iterator[Losses]:
    """Losses of a plan without gradients: by micro-batch, or all at once where the objective couples them.

    ranks: of which the plan is this one's part. Each gives the losses of its own; of a coupled batch the first one all.
    """
    with torch.no_grad():
        if not objective.needs.coupled:
            for on_host in plan.micro_batches:
                batch = on_host.to(scorer.device)
                values = objective.values(scorer, batch, precision)
                if not batch.filler:
                    scored = objective.scored([batch], [values], plan)
                    yield Losses(scored, objective(scored))
            return
        batches = [batch.to(scorer.device) for batch in plan.micro_batches]
        scored = objective.scored(
            batches, [objective.values(scorer, batch, precision) for batch in batches], plan, ranks
        )
        if ranks.first:
            yield Losses(scored, objective(scored))


def agreeing(scored: Scored) -> Scored:
    """The same sequences if the policy were the reference; what else there is of its distributions stays as it is."""
    assert scored.reference_logps_N is not None
    return replace(
        scored,
        logps_N=scored.reference_logps_N,
        token_logps_T=scored.reference_token_logps_T,
        reference_kl_T=None if scored.reference_kl_T is None else torch.zeros_like(scored.reference_kl_T),
    )


def backward(
    scorer: Scorer,
    plan: Plan,
    objective: BoundObjective,
    precision: torch.dtype,
    seen: Callable[[Losses], None],
    ranks: Ranks = ALONE,
) -> Mapping[str, Tensor]:
    """Adds the gradient of a plan's mean loss to the weights'; `seen` is given the losses as they come.

    The loss is the sum over units divided by their number in the whole plan, known before any backward pass, so
    micro-batches change nothing. An objective that couples the batch has its gradient taken over all of it: every
    micro-batch is scored once without gradients, the loss and its slope by every log-probability are taken, and a
    second pass carries those slopes to the weights (gradient caching, arXiv 2101.06983). One micro-batch of one process
    needs no second pass.

    ranks: of which the plan is this one's part. Gradients are then means over the ranks (distributed/sharding.py), of
        losses taken as many times as there are ranks. `seen` is given what `evaluated` gives.

    Returns:
        The objective's statistics, moved by the plan; they are its own once they are put into it.
    """
    assert objective.objective.running is None or objective.needs.coupled
    units = objective.units(plan) / ranks.count
    if not objective.needs.coupled or (len(plan.micro_batches) == 1 and not ranks.several):
        running: Mapping[str, Tensor] = objective.running
        for on_host in in_turn(scorer, plan.micro_batches):
            batch = on_host.to(scorer.device)
            values = objective.values(scorer, batch, precision)
            if batch.filler:
                _nothing(values).backward()
                continue
            scored = objective.moved(objective.scored([batch], [values], plan))
            losses = Losses(scored, objective(scored))
            (losses.output.losses_U.sum() / units).backward()
            seen(losses)
            running = scored.running
        return running
    return _coupled(scorer, plan, objective, precision, seen, ranks)


def _coupled(
    scorer: Scorer,
    plan: Plan,
    objective: BoundObjective,
    precision: torch.dtype,
    seen: Callable[[Losses], None],
    ranks: Ranks,
) -> Mapping[str, Tensor]:
    """`backward` in two passes."""
    batches = [batch.to(scorer.device) for batch in plan.micro_batches]
    with torch.no_grad():
        values = [objective.values(scorer, batch, precision) for batch in batches]
    leaves = [value.as_leaves() for value in values]
    scored = objective.moved(objective.scored(batches, leaves, plan, ranks))
    losses = Losses(scored, objective(scored))
    counted = [value for batch, value in zip(batches, leaves, strict=True) if not batch.filler]
    wanted = [leaf for value in counted for leaf in value.differentiable]
    mean = losses.output.losses_U.sum() / (objective.units(plan) / ranks.count)
    slopes = iter(torch.autograd.grad(mean, wanted, materialize_grads=True) if wanted else ())
    if ranks.first:
        seen(losses)
    again = objective if objective.needs.live else replace(objective, reference=None)
    for batch in in_turn(scorer, batches):
        values_again = again.values(scorer, batch, precision)
        if batch.filler:
            _nothing(values_again).backward()
        else:
            own = values_again.differentiable
            torch.autograd.backward(own, [next(slopes) for _ in own])
    return scored.running


def _nothing(values: TokenValues) -> Tensor:
    """A loss of no slope, whose backward pass goes through all layers as any other's does."""
    return torch.stack([value.sum() for value in values.differentiable]).sum() * 0
