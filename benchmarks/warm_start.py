"""How long a run takes from the command to its first training step, when all that is kept is found again.

    python benchmarks/warm_start.py --output benchmarks/results/speed/avx512-warm-start.json -- --data.train pairs.jsonl

The run's settings follow `--`; without any it is the demo. The first run fills an empty cache; the others find tokens
and the reference's values in it. Each is a process of its own, and is asked to stop after its first step. A step begins
as many seconds before its row is in `metrics.jsonl` as the row says that it took.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tyro

from machine import Circumstances, circumstances, write_record

LOOKS_A_SECOND = 100


@dataclass(frozen=True, slots=True)
class Arguments:
    """How often. settings: of the run, as words of `tiltlm train`."""

    settings: tyro.conf.Positional[tuple[str, ...]] = ()
    rounds: int = 3
    output: Path | None = None
    """Where the record goes, as JSON. Unset: it is printed alone."""


@dataclass(frozen=True, slots=True)
class Record:
    """Seconds from the command to the first training step: with nothing kept, and then with all of it, each time."""

    circumstances: Circumstances
    settings: tuple[str, ...]
    cold: float
    warm: tuple[float, ...]
    warm_median: float


def seconds_to_first_step(settings: tuple[str, ...], folder: Path, cache: Path) -> float:
    """Runs until the first step is done. Seconds until it began."""
    words = [sys.executable, "-m", "tiltlm", "train", *settings, "--run.directory", str(folder), "--run.name", "run"]
    start = time.time()
    run = subprocess.Popen(words, env=os.environ | {"TILTLM_CACHE": str(cache)}, stdout=subprocess.DEVNULL)
    try:
        while (row := _first_step(folder / "run" / "metrics.jsonl")) is None:
            if run.poll() is not None:
                raise RuntimeError("the run ended before its first step")
            time.sleep(1 / LOOKS_A_SECOND)
        return time.time() - start - row
    finally:
        run.send_signal(signal.SIGTERM)
        run.wait()


def _first_step(metrics: Path) -> float | None:
    """Seconds of the first training step, where it is written."""
    if not metrics.is_file():
        return None
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines(True) if line.endswith("\n")]
    return next((row["seconds"] for row in rows if row["kind"] == "train"), None)


def main(arguments: Arguments) -> None:
    """Measures, and writes or prints the record."""
    before = circumstances("auto")
    with tempfile.TemporaryDirectory() as name:
        cache, seconds = Path(name) / "cache", []
        for number in range(arguments.rounds + 1):
            seconds.append(seconds_to_first_step(arguments.settings, Path(name) / str(number), cache))
            print(f"{'warm' if number else 'cold'}: {seconds[-1]:.2f} s to the first step", flush=True)
    cold, *warm = (round(one, 3) for one in seconds)
    record = Record(before, arguments.settings, cold, tuple(warm), median(warm))
    if arguments.output is not None:
        write_record(record, arguments.output)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
