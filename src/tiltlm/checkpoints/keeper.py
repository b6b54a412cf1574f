"""When checkpoints are taken, which are kept, and how they reach the disk while training goes on."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from safetensors import SafetensorError
from torch.distributed import ProcessGroup

from tiltlm.checkpoints.checkpoint_folder import (
    Circumstances,
    DamagedError,
    checkpoints_in,
    described,
    read_record,
    remove,
    verified,
    write_checkpoint,
)
from tiltlm.config import CheckpointConfig
from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.errors import RunError
from tiltlm.runs.checkpoint_record import CheckpointRecord
from tiltlm.runs.rows import EvalRow
from tiltlm.storage.library_errors import is_out_of_memory
from tiltlm.storage.space import folder_bytes, in_words
from tiltlm.storage.whole_files import sync
from tiltlm.training.loop import Trainer
from tiltlm.training.observers import Row

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The checkpoint to go on from, and why later ones are not used, by their names."""

    path: Path
    record: CheckpointRecord
    unused: dict[str, str]


def last_whole(folder: Path, metrics: Path) -> Found | None:
    """The last checkpoint that is as it was written and whose rows are those of the metrics. Nothing is changed.

    None where there is no checkpoint, so that a run begins at its beginning.

    Raises:
        RunError: there are some, and none can be gone on from; or a later version wrote one.
        OSError: one cannot be read.
    """
    unused: dict[str, str] = {}
    for path in reversed(checkpoints_in(folder)):
        try:
            record = verified(path)
        except DamagedError as error:
            unused[path.name] = f"it is damaged: {error}"
            continue
        if metrics.is_file() and described(metrics, record.metrics.bytes) == record.metrics:
            return Found(path, record, unused)
        unused[path.name] = f"{metrics.name} does not begin with the rows that it had then"
    if unused:
        listed = "; ".join(f"{name}: {why}" for name, why in unused.items())
        raise RunError(
            f"no checkpoint in {folder} can be gone on from ({listed}). Put back what was there; or, to begin the run "
            "at its beginning, move that folder away and resume again. tiltlm export makes a model of a whole one."
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
        settings, identity: see `CheckpointRecord`.
        say: is told of a checkpoint that could not be written.
        ranks: each of which writes its shares; the first one makes a checkpoint of them.
    """

    folder: Path
    config: CheckpointConfig
    metrics: Path
    settings: Mapping[str, str]
    identity: Mapping[str, str]
    say: Say
    ranks: Ranks = ALONE
    group: ProcessGroup | None = field(init=False)
    was_due: bool = field(default=False, init=False)
    _held_out: EvalRow | None = field(default=None, init=False)
    _last_step: int = field(default=0, init=False)
    _last_time: float = field(default_factory=lambda: time.monotonic(), init=False)
    _writer: threading.Thread | None = field(default=None, init=False)
    _failure: Exception | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.group = self.ranks.beside()

    def went_on_from(self, found: Found) -> None:
        """Counts on from a checkpoint that training went on from."""
        self._last_step, self._held_out, self.was_due = found.record.step, found.record.held_out, True

    def observe(self, row: Row) -> None:
        """Remembers the last evaluation."""
        if isinstance(row, EvalRow):
            self._held_out = row

    def after_step(self, trainer: Trainer) -> None:
        """Takes a checkpoint if one is due."""
        if not self.ranks.any(self.ranks.first and self._due(trainer.progress.step)):
            return
        self.wait()
        self.ranks.wait_for_all()
        self.was_due, self._last_time = True, time.monotonic()
        try:
            write = self._writing(trainer, goes_on=True)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or self.ranks.several:  # the others are in the midst of it
                raise
            self._failure = error
            return
        self._writer = threading.Thread(target=write, name="checkpoint")
        self._writer.start()

    def ended(self, trainer: Trainer, completed: bool) -> None:
        """Takes one of a trainer that has stopped, on the disk when this returns.

        None where its step has one; and none of a training that came to its end before one was due, as what is left to
        do then takes little.
        """
        self.wait()
        self.ranks.wait_for_all()  # the first may still have given one its name
        wanted = self.config.on and trainer.progress.step > self._last_step and (self.was_due or not completed)
        if not self.ranks.any(self.ranks.first and wanted):
            return
        self._writing(trainer, goes_on=False)()
        self.wait(goes_on=False)

    def wait(self, goes_on: bool = True) -> None:
        """Returns once nothing is being written. goes_on: whether training does."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if isinstance(self._failure, RuntimeError) and self.ranks.several:
            # Of ranks that lost each other while they wrote; they cannot go on together.
            failure, self._failure = self._failure, None
            raise failure
        if self._failure is not None:
            after = "Training goes on, and the next is tried when it is due." if goes_on else ""
            reason = str(self._failure) or type(self._failure).__name__
            self.say(f"  a checkpoint could not be written: {reason}. {after}".rstrip())
            self._failure = None

    def in_words(self) -> str | None:
        """Which ones there are, where, and how large; None where there are none."""
        paths = checkpoints_in(self.folder)
        if not paths:
            return None
        steps = ", ".join(str(int(path.name.removeprefix("step-"))) for path in paths)
        found = best(paths, self.config.best)
        named = f", the best of them {int(found.name.removeprefix('step-'))}" if found is not None else ""
        return f"checkpoints in {self.folder} of steps {steps}{named}: {in_words(folder_bytes(self.folder))}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        else:
            with suppress(RuntimeError):  # what ended training tells more
                self.wait()

    def _due(self, step: int) -> bool:
        steps, minutes = self.config.every_steps, self.config.every_minutes
        return bool(steps and step % steps == 0) or bool(minutes and time.monotonic() - self._last_time >= 60 * minutes)

    def _writing(self, trainer: Trainer, goes_on: bool) -> Callable[[], None]:
        """What writes a state with all that it is of as of this moment, and keeps why if it cannot.

        goes_on: whether training does meanwhile.
        """
        step = trainer.progress.step
        held_out = self._held_out if self._held_out is not None and self._held_out.step == step else None
        circumstances = Circumstances(described(self.metrics), held_out, self.settings, self.identity)
        finish = self._begun(trainer, circumstances, goes_on)

        def write() -> None:
            try:
                finish()
                self._last_step = step
                if self.ranks.first:
                    self._forget_old()
            except (OSError, SafetensorError, MemoryError, RuntimeError) as error:
                self._failure = error

        return write

    def _begun(self, trainer: Trainer, circumstances: Circumstances, goes_on: bool) -> Callable[[], None]:
        """What is left to do of a checkpoint once training may change the weights."""
        state = trainer.state()
        if self.group is not None:
            from tiltlm.checkpoints.shared_checkpoint import begin_together

            ready = functools.partial(sync, self.metrics)
            return begin_together(self.folder, state, circumstances, self.ranks, self.group, ready)
        held = state.copy() if goes_on else state

        def finish() -> None:
            sync(self.metrics)
            write_checkpoint(self.folder, held, circumstances)

        return finish

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
