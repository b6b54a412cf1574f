"""What a process of its own is told to measure, and the files by which it is told and tells."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tiltlm.bench.speed_record import Timed
from tiltlm.config import Config, config_from_dict
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.runs.schema import from_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A training to be timed, or what must be known before.

    settings: as in a run's `config.json`. pairs: the file of tokenized pairs. reference: the folder of the reference's
        values. steps, batch: how many steps, of how many pairs each; step n has the nth batch of the file.
    """

    settings: dict[str, dict[str, Any]]
    pairs: str
    reference: str
    steps: int
    batch: int

    @property
    def config(self) -> Config:
        """The settings."""
        return config_from_dict(self.settings)

    def examples(self, step: int) -> np.ndarray:
        """Numbers of a step's pairs, in the order of the file."""
        return np.arange(step * self.batch, (step + 1) * self.batch)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it: a training, or else operations a second of matrix products, or nothing but files."""

    timed: Timed | None = None
    peak: float | None = None


@dataclass(frozen=True, slots=True)
class _Pair:
    """A line of the file of pairs: token ids of the prompt, and of the answers behind it."""

    id: str
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def write_pairs(path: Path, pairs: Iterable[TokenizedExample]) -> None:
    """Writes tokenized pairs, whose answers stand behind one prompt, so that any program can read them."""
    with path.open("w", encoding="utf-8") as file:
        for pair in pairs:
            first = pair.chosen.first_scored
            answers = (pair.chosen.ids[first:].tolist(), pair.rejected.ids[first:].tolist())
            line = _Pair(pair.id, pair.chosen.ids[:first].tolist(), *answers)
            file.write(json.dumps(dataclasses.asdict(line)) + "\n")


def read_pairs(path: Path) -> TokenColumns:
    """The pairs that `write_pairs` wrote."""

    def sequence(prompt: list[int], answer: list[int]) -> TokenizedSequence:
        return TokenizedSequence(np.array(prompt + answer, dtype=np.int32), len(prompt))

    lines = [from_json(_Pair, line) for line in path.read_bytes().splitlines()]
    return TokenColumns.of(
        TokenizedExample.pair(one.id, sequence(one.prompt, one.chosen), sequence(one.prompt, one.rejected))
        for one in lines
    )


def of_one_prompt(pair: TokenizedExample) -> bool:
    """Whether both answers stand behind the same tokens."""
    chosen, rejected = pair.chosen, pair.rejected
    first = chosen.first_scored
    return first == rejected.first_scored and bool((chosen.ids[:first] == rejected.ids[:first]).all())
