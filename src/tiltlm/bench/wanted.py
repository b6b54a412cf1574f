"""What a benchmark is asked to measure."""

from __future__ import annotations

from dataclasses import dataclass

from tiltlm.bench.systems import System


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is measured. rounds: how often. steps, batch: of each training. trl_python: the interpreter that has TRL."""

    systems: tuple[System, ...]
    rounds: int
    steps: int
    batch: int
    trl_python: str
