"""The rows of `metrics.jsonl`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardMeans:
    loss: float
    chosen_reward: float | None
    rejected_reward: float | None
    margin: float | None
    accuracy: float | None
    chosen_logp: float | None
    rejected_logp: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRow(RewardMeans):
    step: int
    epoch: float
    gradient_norm: float
    learning_rate: float
    examples: int
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRow(RewardMeans):
    step: int
    epoch: float
    examples: int
    accuracy_interval: Interval | None
    seconds: float


def metrics_line(row: TrainRow | EvalRow) -> str:
    kind = "train" if isinstance(row, TrainRow) else "eval"
    return json.dumps({"kind": kind, **dataclasses.asdict(row)}) + "\n"
