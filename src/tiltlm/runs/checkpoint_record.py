"""What a checkpoint says of itself: `checkpoint.json`."""

from __future__ import annotations

from dataclasses import dataclass

from tiltlm.runs.rows import EvalRow


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file's size, and the XXH3-128 of its bytes as hexadecimal digits: against accidents, not against forgers."""

    bytes: int
    xxh3_128: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRecord:
    """`checkpoint.json`.

    step: optimizer steps taken.
    metrics: what of `metrics.jsonl` there was, the rows up to this step.
    settings: those that decide what a run comes to, as text by `section.option`.
    held_out: the evaluation of these very weights; None where there was none at this step.
    identity: digests of what the state is of, by name: examples, reference values, weights before training, arithmetic.
    files: those of the checkpoint by name, but this one.
    """

    step: int
    metrics: StoredFile
    held_out: EvalRow | None
    settings: dict[str, str]
    identity: dict[str, str]
    files: dict[str, StoredFile]
