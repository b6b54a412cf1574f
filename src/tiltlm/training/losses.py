"""From log-probabilities of micro-batches to losses, and back to gradients, also where the whole batch is coupled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tiltlm.model.scorer import Scorer
from tiltlm.objectives.interface import LossOutput, Scored
from tiltlm.plan.batches import Plan
from tiltlm.training.bound_objective import BoundObjective


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """What the objective was given of some examples, and what it made of it."""

    scored: Scored
    output: LossOutput


def evaluated(scorer: Scorer, plan: Plan, objective: BoundObjective, precision: torch.dtype) -> Iterator[Losses]:
    """Losses of a plan without gradients: by micro-batch, or all at once where the objective couples them."""
    with torch.no_grad():
        if not objective.needs.coupled:
            for on_host in plan.micro_batches:
                batch = on_host.to(scorer.device)
                scored = objective.scored([batch], [objective.values(scorer, batch, precision)], plan)
                yield Losses(scored, objective(scored))
            return
        batches = [batch.to(scorer.device) for batch in plan.micro_batches]
        scored = objective.scored(batches, [objective.values(scorer, batch, precision) for batch in batches], plan)
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
            scored = objective.moved(objective.scored([batch], [objective.values(scorer, batch, precision)], plan))
            losses = Losses(scored, objective(scored))
            (losses.output.losses_U.sum() / units).backward()
            seen(losses)
        return scored.running
    batches = [batch.to(scorer.device) for batch in plan.micro_batches]
    with torch.no_grad():
        values = [objective.values(scorer, batch, precision) for batch in batches]
    leaves = [value.as_leaves() for value in values]
    scored = objective.moved(objective.scored(batches, leaves, plan))
    losses = Losses(scored, objective(scored))
    wanted = [leaf for value in leaves for leaf in value.differentiable]
    slopes = iter(torch.autograd.grad(losses.output.losses_U.sum() / units, wanted, materialize_grads=True))
    seen(losses)
    again = objective if objective.needs.live else replace(objective, reference=None)
    for batch in batches:
        own = again.values(scorer, batch, precision).differentiable
        torch.autograd.backward(own, [next(slopes) for _ in own])
    return scored.running
