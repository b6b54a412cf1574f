"""All that training would need to go on from here, in one object."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from tiltlm.distributed.shares import share_of, take


@dataclass(slots=True)
class Progress:
    """How far training has come.

    step: optimizer steps taken. The place in the data and in the schedule follow from it.
    examples, tokens: how many were computed with, tokens without padding and shared ones once.
    seconds: time spent in steps.
    """

    step: int = 0
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainerState:
    """Weights, optimizer, progress, random states, and the objective's statistics; of several ranks their shares.

    random: of every generator that a step may draw from, an objective of a user's own among them.
    reference: weights of a reference that moves; None where it does not.
    running: see `Running` of objectives/interface.py; none in states of before there were any.
    """

    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    progress: Progress
    random: dict[str, Any]
    reference: dict[str, torch.Tensor] | None = None
    running: dict[str, torch.Tensor] = field(default_factory=dict)

    def copy(self) -> TrainerState:
        """The same with tensors of its own on the CPU: what training does next does not change it."""
        copied: dict[str, Any] = _copied(self.to_dict())
        return TrainerState.from_dict(copied)

    def to_dict(self) -> dict[str, Any]:
        """As containers of plain values and tensors."""
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "progress": dataclasses.asdict(self.progress),
            "random": self.random,
            "reference": self.reference,
            "running": self.running,
        }

    @staticmethod
    def from_dict(table: dict[str, Any]) -> TrainerState:
        """The state that `to_dict` gave."""
        progress, reference = Progress(**table["progress"]), table.get("reference")
        running = dict(table.get("running", {}))
        return TrainerState(table["model"], table["optimizer"], progress, dict(table["random"]), reference, running)


def weights_of(parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> dict[str, torch.Tensor]:
    """Weights by their names: those in use, not copies."""
    return {name: parameter.detach() for name, parameter in parameters}


@torch.no_grad()
def take_weights(parameters: Iterable[tuple[str, torch.nn.Parameter]], weights: dict[str, torch.Tensor]) -> None:
    """Writes weights into parameters, by name."""
    for name, parameter in parameters:
        take(parameter, weights[name])


def load_optimizer(optimizer: torch.optim.Optimizer, table: dict[str, Any]) -> None:
    """Puts an optimizer into the state of one of the same parameters, be they shared out over ranks or not."""
    parameters = [own for group in optimizer.param_groups for own in group["params"]]
    state = {
        number: {name: _beside(parameters[number], value) for name, value in values.items()}
        for number, values in table["state"].items()
    }
    optimizer.load_state_dict({**table, "state": state})


def _beside(parameter: torch.Tensor, value: Any) -> Any:
    """This rank's share of a value, where the parameter's own is, which may be offloaded; whatever else as it is."""
    share = share_of(value, parameter)
    return share.to(parameter.device) if isinstance(share, DTensor) else share


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        own: torch.Tensor = value.detach().to("cpu", copy=True)
        return own
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value


def random_states() -> dict[str, Any]:
    """The states of the random generators of torch, numpy and Python, as tensors and plain values."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    states = {
        "cpu": torch.get_rng_state(),
        "numpy": (kind, [int(key) for key in keys], *rest),
        "python": random.getstate(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """Puts the random generators back into these states."""
    torch.set_rng_state(states["cpu"])
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
