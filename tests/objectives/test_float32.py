"""Losses and gradients in float32, which is what training computes them in, are those of float64 but for rounding."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
import torch
from scored_examples import Completion, random_examples, scored, with_running
from torch import Tensor

from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.divergences import Divergence
from tiltlm.objectives.interface import Objective

ALL = [pytest.param(objective, objective.settings(), id=name) for name, objective in OBJECTIVES.items()]
DIVERGENT = [
    pytest.param(objective, objective.settings(divergence=kind), id=f"{objective.name}-{kind}")
    for objective in OBJECTIVES.values()
    if hasattr(objective.settings(), "divergence")
    for kind in get_args(get_args(Divergence)[0])
]
NEAR = 1e-4
"""Of the largest gradient: rounding of single operations is 6e-8, that of log-ratios of tens of nats 4e-6."""


def losses_and_slopes(
    objective: Objective, settings: Any, examples: list[list[Completion]], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Of what float32 can hold, so that both types are given the same; slopes in every token of the policy."""
    policies = [one.policy.float().to(dtype).requires_grad_() for example in examples for one in example]
    drawn = iter(policies)
    given = [
        [dataclasses.replace(one, policy=next(drawn), reference=one.reference.float().to(dtype)) for one in example]
        for example in examples
    ]
    losses_U = objective.loss(with_running(scored(given, objective.needs), objective, settings), settings).losses_U
    slopes = torch.autograd.grad(losses_U.sum(), policies, allow_unused=True)
    kept = [torch.zeros_like(one) if slope is None else slope for one, slope in zip(policies, slopes, strict=True)]
    return losses_U.detach().double(), torch.cat(kept).double()


@pytest.mark.parametrize(("objective", "settings"), ALL + DIVERGENT)
@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0])
def test_float32_gives_what_float64_gives(objective: Objective, settings: Any, spread: float) -> None:
    """At the start, near it, and far from it. A gradient that is a difference of large numbers does not hold this."""
    examples = random_examples(objective.needs, 6, seed=5, spread=spread)
    losses, slopes = losses_and_slopes(objective, settings, examples, torch.float64)
    rough_losses, rough_slopes = losses_and_slopes(objective, settings, examples, torch.float32)
    assert float((rough_losses - losses).abs().max()) <= NEAR * float(losses.abs().max().clamp(min=1))
    assert float((rough_slopes - slopes).abs().max()) <= NEAR * float(slopes.abs().max())
