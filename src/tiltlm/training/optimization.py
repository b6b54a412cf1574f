"""Optimizer and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from tiltlm.config import TrainingConfig

OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], TrainingConfig], torch.optim.Optimizer]] = {
    "adamw": lambda parameters, config: torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    ),
    "rmsprop": lambda parameters, config: torch.optim.RMSprop(parameters, lr=config.learning_rate),
}
"""RMSprop with PyTorch's defaults is what the DPO paper used (arXiv 2305.18290, appendix B)."""

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}
"""Learning-rate factor after warm-up, for progress from 0 to 1."""


def learning_rate_factor(step: int, steps: int, config: TrainingConfig) -> float:
    """Factor on the peak learning rate at a step counted from 0.

    Warm-up climbs linearly and reaches 1 at its last step, so that no step is spent at rate 0.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return SCHEDULES[config.schedule](progress)


def begin_moments(optimizer: torch.optim.Optimizer) -> None:
    """Makes what an optimizer that has taken no step keeps of each parameter, by a step that changes nothing: of zero
    gradients, at a rate of zero. So values can be read into it."""
    if optimizer.state:
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for own in group["params"]:
            own.grad = torch.zeros_like(own)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def make_moments(optimizer: torch.optim.Optimizer) -> None:
    """Makes what the optimizer keeps of each parameter, by a step that a fused optimizer is told to skip.

    Before the first forward pass they lie beside the weights. Made after it, as PyTorch does, they lie above what that
    pass took, in pages never touched, and what it took lies free below them in pieces. So it is on a CPU. A GPU's
    memory is given out in blocks that serve anew, and its fused step refuses such gradients: one zero, seen everywhere.
    """
    parameters = [own for group in optimizer.param_groups for own in group["params"]]
    on_cpu = all(own.device.type == "cpu" and not isinstance(own, DTensor) for own in parameters)
    if not getattr(optimizer, "_step_supports_amp_scaling", False) or not on_cpu:
        return
    for own in parameters:
        own.grad = own.new_zeros(()).expand_as(own)
    optimizer.grad_scale, optimizer.found_inf = None, torch.ones((), device=parameters[0].device)  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
