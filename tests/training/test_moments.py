"""Moments made before the first step are those that the optimizer would have made at it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tiltlm.config import TrainingConfig
from tiltlm.training.optimization import OPTIMIZERS, make_moments


def trained(optimizer_name: Any, moments_first: bool) -> tuple[nn.Module, torch.optim.Optimizer, int]:
    """A small model after three steps, and how many tensors the optimizer kept before the first."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    training = TrainingConfig(optimizer=optimizer_name, learning_rate=0.1)
    optimizer = OPTIMIZERS[optimizer_name](model.parameters(), training)
    if moments_first:
        make_moments(optimizer)
    kept = sum(
        isinstance(value, torch.Tensor) and value.dim() > 0
        for own in optimizer.state.values()
        for value in own.values()
    )
    assert all(own.grad is None for own in model.parameters())
    for _ in range(3):
        model(torch.randn(4, 5)).square().sum().backward()
        if optimizer_name == "adamw":
            optimizer.grad_scale, optimizer.found_inf = None, torch.zeros(())  # type: ignore[attr-defined]
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer, kept


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_weights_and_moments_are_the_same_to_the_bit(optimizer_name: str) -> None:
    first, later = (trained(optimizer_name, moments_first) for moments_first in (True, False))
    assert later[2] == 0
    assert first[2] == (2 * 4 if optimizer_name == "adamw" else 0)
    for one, other in zip(first[0].parameters(), later[0].parameters(), strict=True):
        assert torch.equal(one, other)
    kept, made = (optimizer.state_dict()["state"] for _, optimizer, _ in (first, later))
    for number, own in made.items():
        assert set(own) == set(kept[number])
        assert all(torch.equal(torch.as_tensor(own[name]), torch.as_tensor(kept[number][name])) for name in own)


def test_elsewhere_than_on_a_cpu_the_optimizer_makes_its_own() -> None:
    """A fused step on a GPU refuses gradients that are one zero seen everywhere."""

    class Refusing:
        _step_supports_amp_scaling = True
        param_groups = ({"params": [nn.Parameter(torch.empty(3, device="meta"))]},)

        def step(self) -> None:
            raise RuntimeError("params, grads, exp_avgs, and exp_avg_sqs must have same dtype, device, and layout")

    make_moments(Refusing())  # type: ignore[arg-type]
