"""What checkpoints cost the steps, and how long they take to reach the disk.

    python benchmarks/checkpoint_costs.py --output benchmarks/results/checkpoint-costs/smollm2.json

Trains SmolLM2-135M on the demo's pairs in rounds, one without checkpoints and one with, and looks at the time from the
end of one step to the end of the next: after which a checkpoint was taken, so that its copy and the beginning of its
writing fall into it; the one after that, in which it may still be written; and others. The copy and the writing are
timed by themselves as well.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import tyro

import tiltlm
from machine import Circumstances, circumstances, write_record
from tiltlm import demo
from tiltlm.checkpoints import keeper
from tiltlm.checkpoints.checkpoint_folder import Circumstances as Recorded
from tiltlm.checkpoints.checkpoint_folder import write_checkpoint
from tiltlm.config import CheckpointConfig, Config, load_config
from tiltlm.runs.environment import peak_memory_gib
from tiltlm.runs.rows import TrainRow
from tiltlm.training.observers import Row
from tiltlm.training.state import TrainerState


@dataclass(frozen=True, slots=True)
class Arguments:
    """How much to measure."""

    output: Path | None = None
    """Where the record goes, as JSON. Unset: it is printed."""
    rounds: int = 3
    """Pairs of runs, one without checkpoints and one with."""
    steps: int = 12
    """Steps of each run, all of the same number of pairs."""
    every: int = 4
    """A checkpoint every so many steps."""


@dataclass(frozen=True, slots=True)
class Record:
    """Seconds, medians. `interval_*` are from one step's end to the next, whatever lies between.

    interval_without: in runs without checkpoints. interval_taken: after a step that a checkpoint was taken after, its
    copy included. interval_writing: the one after that. interval_between: others of these runs.
    copy: of the state's copy. written: from the copy to its name on the disk. gigabytes: of a checkpoint.
    """

    circumstances: Circumstances
    arguments: Arguments
    interval_without: float
    interval_taken: float
    interval_writing: float
    interval_between: float
    copy: float
    written: float
    gigabytes: float
    peak_memory_gib: float | None
    all_intervals: dict[str, list[float]] = field(default_factory=dict)


@dataclass(slots=True)
class Watch:
    """Times of the ends of steps, of copies and of writings."""

    ends: list[float] = field(default_factory=list)
    copies: list[float] = field(default_factory=list)
    writings: list[float] = field(default_factory=list)
    bytes: int = 0

    def row(self, row: Row) -> None:
        if isinstance(row, TrainRow):
            self.ends.append(time.perf_counter())

    def copy(self, state: TrainerState) -> TrainerState:
        start = time.perf_counter()
        copied = _COPY(state)
        self.copies.append(time.perf_counter() - start)
        return copied

    def write(self, folder: Path, state: TrainerState, recorded: Recorded) -> Path:
        start = time.perf_counter()
        path = write_checkpoint(folder, state, recorded)
        self.writings.append(time.perf_counter() - start)
        self.bytes = sum(file.stat().st_size for file in path.iterdir())
        return path


_COPY = TrainerState.copy


def run(arguments: Arguments, folder: Path, every: int) -> Watch:
    """One training; every: steps between checkpoints, 0 for none."""
    watch, config = Watch(), settings(arguments, folder, every)
    with (
        patch.object(TrainerState, "copy", lambda state: watch.copy(state)),
        patch.object(keeper, "write_checkpoint", watch.write),
    ):
        tiltlm.train(config, observers=[watch.row])
    return watch


def settings(arguments: Arguments, folder: Path, every: int) -> Config:
    config = load_config(demo.CONFIG)
    return replace(
        config,
        run=replace(config.run, directory=str(folder), name=f"every-{every}", overwrite=True),
        training=replace(config.training, epochs=1, max_steps=arguments.steps, eval_every=0),
        checkpoint=CheckpointConfig(every_steps=every, every_minutes=0, keep=1, best="none"),
        comparison=replace(config.comparison, prompts=0, extra_prompts=(), reward="none"),
    )


def main(arguments: Arguments) -> None:
    before = circumstances("auto")
    without: list[float] = []
    taken: list[float] = []
    writing: list[float] = []
    between: list[float] = []
    copies: list[float] = []
    writings: list[float] = []
    size = 0
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            plain = run(arguments, Path(folder), 0)
            without += [late - early for early, late in zip(plain.ends[1:], plain.ends[2:], strict=False)]
            watched = run(arguments, Path(folder), arguments.every)
            for step, (early, late) in enumerate(zip(watched.ends[1:], watched.ends[2:], strict=False), start=2):
                # The copy after step n lies between its end and that of the next.
                kind = taken if step % arguments.every == 0 else writing if step % arguments.every == 1 else between
                kind.append(late - early)
            copies += watched.copies
            writings += watched.writings
            size = watched.bytes
    record = Record(
        circumstances=before,
        arguments=arguments,
        interval_without=statistics.median(without),
        interval_taken=statistics.median(taken),
        interval_writing=statistics.median(writing),
        interval_between=statistics.median(between),
        copy=statistics.median(copies),
        written=statistics.median(writings),
        gigabytes=size / 1e9,
        peak_memory_gib=peak_memory_gib(),
        all_intervals={"without": without, "taken": taken, "writing": writing, "between": between},
    )
    if arguments.output is not None:
        write_record(record, arguments.output)
    print(replace(record, all_intervals={}))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
