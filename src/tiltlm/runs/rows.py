"""The rows of `metrics.jsonl`. Log-probabilities are in nats, intervals cover 95%."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Annotated

from pydantic import AliasChoices, Field

from tiltlm.runs.estimates import Interval
from tiltlm.runs.schema import versioned

# Version 0.1 called them pairs.
ExampleCount = Annotated[int, Field(validation_alias=AliasChoices("examples", "pairs"))]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When a row was taken: after how many optimizer steps, and how many passes over the training examples."""

    step: int
    epoch: float


@dataclass(frozen=True)
class RewardMeans:
    """Means over units, pairs or labelled completions. Rewards are those of the objective, such as the implicit rewards
    beta * (log pi - log pi_ref).

    accuracy: share of pairs whose chosen reward is above the rejected one, or of labelled completions whose reward has
        the sign of its label, or of the ordered pairs within a list, averaged over lists; a tie counts half.

    Of lists, chosen are the best answers, and rejected the worst. Demonstrations have a loss and chosen_logp alone.

    None: there was nothing to take it from, as an unpaired batch may hold no rejected answer.
    """

    loss: float
    chosen_reward: float | None = None
    rejected_reward: float | None = None
    margin: float | None = None
    accuracy: float | None = None
    chosen_logp: float | None = None
    rejected_logp: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainRow(RewardMeans, Moment):
    """One optimizer step: means over its examples.

    gradient_norm: before clipping. tokens: laid out, those of a shared prompt once, padding not counted.
    seconds: the step's own time.
    """

    gradient_norm: float
    learning_rate: float
    examples: ExampleCount
    tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class EvalRow(RewardMeans, Moment):
    """One evaluation on the held-out examples, after `step` optimizer steps.

    accuracy_interval: Wilson's; its trials are prompts where several examples have one prompt.
    moving_*: against a reference that moves, as it was then; the others are against the first one. None where it stays.
    """

    examples: ExampleCount
    accuracy_interval: Interval | None = None
    seconds: float
    moving_loss: float | None = None
    moving_margin: float | None = None
    moving_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """`metrics.jsonl`, in the order it was written."""

    train: tuple[TrainRow, ...]
    evaluations: tuple[EvalRow, ...]


ROW_KINDS: dict[str, type[TrainRow] | type[EvalRow]] = {"train": TrainRow, "eval": EvalRow}
"""The records of `metrics.jsonl` by the `kind` that each line names."""


def metrics_line(row: TrainRow | EvalRow) -> str:
    """The line of `metrics.jsonl` that holds a row, with its newline. Every line has the schema's version and its kind,
    so that any part of the file can be read by itself.
    """
    (kind,) = [name for name, record in ROW_KINDS.items() if type(row) is record]
    return json.dumps(versioned({"kind": kind, **dataclasses.asdict(row)})) + "\n"
