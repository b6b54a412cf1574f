"""When checkpoints are taken, which are kept, and how they reach the disk while training goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from safetensors import SafetensorError

from tiltlm.checkpoints.checkpoint_folder import (
    Circumstances,
    DamagedError,
    checkpoints_in,
    read_record,
    remove,
    set_aside,
    sweep,
    verified,
    write_checkpoint,
)
from tiltlm.config import CheckpointConfig
from tiltlm.errors import RunError
from tiltlm.runs.checkpoint_record import CheckpointRecord
from tiltlm.runs.rows import EvalRow
from tiltlm.storage.durable import sync
from tiltlm.storage.space import folder_bytes, in_words
from tiltlm.training.loop import Trainer
from tiltlm.training.observers import Row
from tiltlm.training.state import TrainerState

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The checkpoint to go on from, and what is wrong with later ones, by their names."""

    path: Path
    record: CheckpointRecord
    damaged: dict[str, str]


def last_whole(folder: Path, metrics: Path) -> Found | None:
    """The last checkpoint that is as it was written; damaged ones after it get a name that is no checkpoint's.

    None where there is no checkpoint, so that a run begins at its beginning.

    Raises:
        RunError: there are some, and all are damaged.
    """
    sweep(folder)
    damaged: dict[str, str] = {}
    whole = metrics.stat().st_size if metrics.is_file() else 0
    for path in reversed(checkpoints_in(folder)):
        try:
            record = verified(path)
            if record.metrics_bytes > whole:
                raise DamagedError(f"{metrics.name} is shorter than it was: {whole} of {record.metrics_bytes} bytes")
        except DamagedError as error:
            damaged[path.name] = str(error)
            continue
        for name in damaged:
            set_aside(folder / name)
        return Found(path, record, damaged)
    if damaged:
        listed = "; ".join(f"{name}: {why}" for name, why in damaged.items())
        raise RunError(
            f"no checkpoint in {folder} is as it was written ({listed}). To begin the run at its beginning, remove "
            "that folder and resume again."
        )
    return None


@dataclass(slots=True, eq=False)
class Checkpoints:
    """Takes checkpoints of a trainer, and keeps the last ones and the best.

    It observes the rows, and is told when a step with all that belongs to it is done. A checkpoint costs the steps a
    copy of the state; a thread writes the copy. One at a time: a step that would begin a second waits for the first.
    One that cannot be written is said, and the next is tried when it is due: those before it are whole.

    Args:
        folder: of the run's checkpoints.
        metrics: the file of the run's rows.
        identity: see `CheckpointRecord`.
        say: is told of a checkpoint that could not be written.
    """

    folder: Path
    config: CheckpointConfig
    metrics: Path
    identity: Mapping[str, str]
    say: Say
    taken: int = field(default=0, init=False)
    _held_out: EvalRow | None = field(default=None, init=False)
    _last_step: int = field(default=0, init=False)
    _last_time: float = field(default_factory=lambda: time.monotonic(), init=False)
    _writer: threading.Thread | None = field(default=None, init=False)
    _failure: Exception | None = field(default=None, init=False)

    def went_on_from(self, found: Found) -> None:
        """Counts on from a checkpoint that training went on from."""
        self._last_step, self._held_out, self.taken = found.record.step, found.record.held_out, 1

    def observe(self, row: Row) -> None:
        """Remembers the last evaluation."""
        if isinstance(row, EvalRow):
            self._held_out = row

    def after_step(self, trainer: Trainer) -> None:
        """Takes a checkpoint if one is due."""
        if self._due(trainer.progress.step):
            self.wait()
            self._take(trainer.state().copy(), aside=True)

    def ended(self, trainer: Trainer, completed: bool) -> None:
        """Takes one of a trainer that has stopped, on the disk when this returns.

        None where its step has one; and none of a training that came to its end before one was due, as what is left to
        do then takes little.
        """
        self.wait()
        if self.config.on and trainer.progress.step > self._last_step and (self.taken or not completed):
            self._take(trainer.state(), aside=False)

    def in_words(self) -> str:
        """Which ones there are, where, and how large."""
        paths = checkpoints_in(self.folder)
        steps = ", ".join(str(int(path.name.removeprefix("step-"))) for path in paths)
        found = best(paths, self.config.best)
        named = f", the best of them {int(found.name.removeprefix('step-'))}" if found is not None else ""
        return f"checkpoints in {self.folder} of steps {steps}{named}: {in_words(folder_bytes(self.folder))}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wait()

    def wait(self) -> None:
        """Returns once nothing is being written."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._failure is not None:
            self.say(
                f"  the checkpoint of step {self._last_step} could not be written, and training goes on: "
                f"{self._failure}. Earlier ones are whole; the next is tried when it is due."
            )
            self._failure = None

    def _due(self, step: int) -> bool:
        steps, minutes = self.config.every_steps, self.config.every_minutes
        return bool(steps and step % steps == 0) or bool(minutes and time.monotonic() - self._last_time >= 60 * minutes)

    def _take(self, state: TrainerState, aside: bool) -> None:
        step = state.progress.step
        held_out = self._held_out if self._held_out is not None and self._held_out.step == step else None
        circumstances = Circumstances(self.metrics.stat().st_size, held_out, self.identity)
        self._last_step, self._last_time, self.taken = step, time.monotonic(), self.taken + 1

        def write() -> None:
            try:
                sync(self.metrics)
                write_checkpoint(self.folder, state, circumstances)
                self._forget_old()
            except (OSError, SafetensorError) as error:
                self._failure = error

        if aside:
            self._writer = threading.Thread(target=write, name="checkpoint")
            self._writer.start()
        else:
            write()
            self.wait()

    def _forget_old(self) -> None:
        paths = checkpoints_in(self.folder)
        kept = {*paths[-self.config.keep :], best(paths, self.config.best)}
        for path in paths:
            if path not in kept:
                remove(path)


def best(paths: list[Path], by: str) -> Path | None:
    """The checkpoint with the best held-out figure, of those whose weights were evaluated; the first of equal ones.

    by: `loss`, `accuracy`, or `none`, which none is best by.
    """
    figures: list[tuple[float, Path]] = []
    for path in paths:
        try:
            held_out = read_record(path).held_out
        except DamagedError:
            continue
        figure = None if held_out is None or by == "none" else getattr(held_out, by)
        if figure is not None:
            figures.append((figure if by == "loss" else -figure, path))
    return min(figures, key=lambda known: known[0])[1] if figures else None
