"""Losses of HALOs, run by its own code, from a checkout that the environment variable HALOS names.

    git clone https://github.com/ContextualAI/HALOs && git -C HALOs checkout 4831988636b4

It is no package. Its losses are methods of trainers, and run on a stand-in that has what they read. Its modules import
packages for logging and for asking a judge, which no loss uses: where they are not installed, empty ones stand in.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from peer_losses import Answer, Batch
from torch import Tensor

COMMIT = "4831988636b4"
_TRAINERS = "e5e9fc0f38045c4695c32721d18917f77d07881c8f332bc8700428d3b7a17210"
_NOT_USED = ("wandb", "omegaconf", "openai")
_BEFORE = ("datasets", "accelerate.utils", "transformers.models.auto.modeling_auto", "trl")
"""What looks whether packages are installed, and so must not find the empty ones."""


class _Empty(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def is_there() -> bool:
    """Whether a checkout is named."""
    return bool(os.environ.get("HALOS"))


@lru_cache(maxsize=1)
def _trainers() -> Any:
    """The module of HALOs that has the trainers.

    Raises:
        ValueError: the checkout is of another commit.
    """
    folder = Path(os.environ["HALOS"])
    found = hashlib.sha256((folder / "train" / "trainers.py").read_bytes()).hexdigest()
    if found != _TRAINERS:
        raise ValueError(f"{folder} is no checkout of HALOs at {COMMIT}.")
    for name in _BEFORE:
        importlib.import_module(name)
    for name in _NOT_USED:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = _Empty(name)
    hub: Any = importlib.import_module("huggingface_hub")
    hub.__dict__.setdefault("HfFolder", object)  # no longer there, imported by HALOs, and not used
    sys.path.insert(0, str(folder))
    return importlib.import_module("train.trainers")


def halos(trainer: str, batch: Batch, **settings: float) -> Tensor:
    """Losses of one of its trainers for pairs, by its name; one a pair, or what its shapes come to."""
    policy = [_padded([one.policy for one in side]) for side in (batch.chosen, batch.rejected)]
    reference = [_padded([one.reference for one in side]) for side in (batch.chosen, batch.rejected)]
    return _losses(trainer, settings, *policy, *reference)


def halos_kto(batch: Batch, **settings: float) -> Tensor:
    """Losses of its KTOTrainer: those of all chosen answers, then those of all rejected ones."""
    sides: tuple[Sequence[Answer], ...] = (batch.chosen, batch.rejected, batch.mismatched)
    policy = [_padded([one.policy for one in side]) for side in sides]
    reference = [_padded([one.reference for one in side]) for side in sides]
    return _losses("KTOTrainer", settings, *policy, *reference)


def _losses(trainer: str, settings: dict[str, float], *logps: Tensor) -> Tensor:
    module = _trainers()
    stand_in = SimpleNamespace(
        config=SimpleNamespace(humanline=False, loss=SimpleNamespace(**settings)),
        policy_dtype=torch.float64,
        accelerator=SimpleNamespace(device=torch.device("cpu"), reduce=lambda values, reduction: values),
    )
    stand_in.get_sequence_rewards = module.BasicTrainer.get_sequence_rewards.__get__(stand_in)
    losses = getattr(module, trainer).loss(stand_in, {}, *logps)[0]
    assert isinstance(losses, Tensor)
    return losses


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
