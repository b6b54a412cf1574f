"""All that training would need to go on from here, in one object."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch


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
    """Weights, optimizer, progress and random states.

    random: of every generator that a step may draw from, by device.
    """

    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    progress: Progress
    random: dict[str, torch.Tensor]

    def to_dict(self) -> dict[str, Any]:
        """As plain containers and tensors, which `torch.save` writes and `torch.load(weights_only=True)` reads."""
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "progress": dataclasses.asdict(self.progress),
            "random": self.random,
        }

    @staticmethod
    def from_dict(table: dict[str, Any]) -> TrainerState:
        """The state that `to_dict` gave."""
        return TrainerState(table["model"], table["optimizer"], Progress(**table["progress"]), dict(table["random"]))


def random_states() -> dict[str, torch.Tensor]:
    """The states of torch's random generators."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: dict[str, torch.Tensor]) -> None:
    """Puts torch's random generators back into these states."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
