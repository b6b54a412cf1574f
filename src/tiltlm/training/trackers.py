"""A run's rows, told to trackers: each in a thread of its own, so that one that fails or hangs stops nothing.

`metrics.jsonl` stays the source. A tracker that cannot be told is named in one warning, and told nothing more.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltlm.config.sections import Config
from tiltlm.config.tables import settings_table
from tiltlm.config.tracker_names import TRACKERS
from tiltlm.demo.packages import require
from tiltlm.runs.earlier_stages import whole_run
from tiltlm.runs.rows import EvalRow
from tiltlm.runs.schema import MalformedError, from_json
from tiltlm.runs.sweep_folder import sweep_of
from tiltlm.text.masking import masked_values
from tiltlm.training.observers import Row
from tiltlm.training.tracker_adapters import ADAPTERS, TrackedRun, Tracker

logger = logging.getLogger(__name__)

FOLDER = "trackers"
"""The folder in a run's that has a file of state, and a folder for files, for each tracker."""
PATIENCE = 30.0
"""Seconds that the end of a run waits for a tracker to hand over what it has."""
FURTHEST_BEHIND = 10_000
"""Rows that may wait for a slow tracker; one further behind is taken to hang."""


@dataclass(frozen=True, slots=True)
class TrackerState:
    """What a run that goes on must know: the tracker's id of it, and the last rows told, by their steps.

    Rows of steps before are those of the same bits, and not told twice.
    """

    id: str
    train: int = -1
    eval: int = -1

    def with_row(self, kind: str, step: int) -> TrackerState:
        """The state after a row of this kind was told."""
        if kind == "eval":
            return dataclasses.replace(self, eval=step)
        return dataclasses.replace(self, train=step)


def require_trackers(names: Sequence[str]) -> None:
    """Makes sure that trackers are installed, before any work and without importing them.

    Raises:
        PackageError: one is not; the message names the extra that brings it.
    """
    for name in names:
        require(TRACKERS[name], f"run.trackers {name}", name)


@contextmanager
def tracked(folder: Path, config: Config, status: Callable[[], str]) -> Iterator[tuple[TrackerThread, ...]]:
    """Within, each tracker that the settings name is an observer of rows; at the end they are told how it ended.

    Args:
        folder: the run's.
        status: how the run ended, asked at the end.
    """
    threads = []
    for name in config.run.trackers:
        place = folder / FOLDER / name
        place.mkdir(parents=True, exist_ok=True)
        run = TrackedRun(tracked_name(folder, config.run.name), flat_settings(config), place, sweep_of(folder))
        threads.append(TrackerThread(name, ADAPTERS[name], run, folder / FOLDER / f"{name}.json"))
    try:
        yield tuple(threads)
    finally:
        ended = status()
        for thread in threads:
            thread.finish(ended)


def tracked_name(folder: Path, name: str) -> str:
    """What a run is called: by its name, or RUN/NAME where it is an earlier stage of one, as other runs have such."""
    whole = whole_run(folder)
    return name if whole == folder else f"{whole.name}/{name}"


def flat_settings(config: Config) -> dict[str, Any]:
    """Every setting by `section.option`, without secrets."""
    return {
        f"{section}.{option}": masked_values(list(value) if isinstance(value, tuple) else value)
        for section, options in settings_table(config).items()
        for option, value in options.items()
    }


def figures_of(row: Row) -> dict[str, float]:
    """A row as flat numbers: `train/loss`, `eval/accuracy`, `eval/accuracy_low`; what was not measured is left out."""
    kind = kind_of(row)
    found: dict[str, float] = {}
    for name, value in dataclasses.asdict(row).items():
        if isinstance(value, tuple | list):
            found |= {
                f"{kind}/{name.removesuffix('_interval')}_{end}": v
                for end, v in zip(("low", "high"), value, strict=True)
            }
        elif name != "step" and isinstance(value, int | float) and math.isfinite(value):
            found[f"{kind}/{name}"] = float(value)
    return found


def kind_of(row: Row) -> str:
    return "eval" if isinstance(row, EvalRow) else "train"


class TrackerThread:
    """A tracker at work: an observer that never raises and never waits.

    Args:
        make: gives the tracker; called in its thread, as is all that the tracker does.
        state: the file that its state is kept in; one that is there is of the run that goes on.
    """

    def __init__(self, name: str, make: Callable[[], Tracker], run: TrackedRun, state: Path) -> None:
        self._name, self._make, self._run, self._file = name, make, run, state
        self._waiting: queue.Queue[tuple[int, str, Mapping[str, float]] | str] = queue.Queue(FURTHEST_BEHIND)
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"the tracker {self._name}"

    def __call__(self, row: Row) -> None:
        if not self._given_up.is_set():
            try:
                self._waiting.put_nowait((row.step, kind_of(row), figures_of(row)))
            except queue.Full:
                self._give_up(f"is {FURTHEST_BEHIND} rows behind")

    def finish(self, status: str) -> None:
        """Lets the tracker end its run, and waits for it as long as `PATIENCE`."""
        if not self._given_up.is_set():
            try:
                self._waiting.put_nowait(status)
            except queue.Full:
                self._give_up(f"is {FURTHEST_BEHIND} rows behind")
                return
            self._thread.join(PATIENCE)
            if self._thread.is_alive():
                self._give_up(f"did not end within {PATIENCE:g} s")

    def _work(self) -> None:
        try:
            known = _read_state(self._file)
            tracker = self._make()
            run = self._run if known is None else dataclasses.replace(self._run, id=known.id)
            state = (
                TrackerState(tracker.start(run)) if known is None else dataclasses.replace(known, id=tracker.start(run))
            )
            _write_state(self._file, state)
            while not isinstance(told := self._waiting.get(), str):
                step, kind, figures = told
                if self._given_up.is_set():
                    return
                if step > getattr(state, kind):
                    tracker.log(step, figures)
                    state = state.with_row(kind, step)
                    _write_state(self._file, state)
            tracker.finish(told)
        except (Exception, SystemExit) as error:
            # Whatever a stranger's code raises: training is worth more than being watched.
            self._give_up(f"failed ({type(error).__name__}: {error})", error)

    def _give_up(self, why: str, error: BaseException | None = None) -> None:
        if not self._given_up.is_set():
            self._given_up.set()
            logger.warning("%r %s and is told nothing more of this run; metrics.jsonl has it all", self, why)
            logger.debug("%r", self, exc_info=error)


def _read_state(path: Path) -> TrackerState | None:
    """The state that a run left; None where it left none that can be read, and so is new to the tracker."""
    try:
        return from_json(TrackerState, path.read_bytes())
    except (OSError, MalformedError):
        return None


def _write_state(path: Path, state: TrackerState) -> None:
    # Not synced to the disk, as checkpoints are: this is written at every step, and is worth little.
    unfinished = path.with_name(f".{path.name}.partial")
    unfinished.write_text(json.dumps(dataclasses.asdict(state)) + "\n", encoding="utf-8")
    unfinished.replace(path)
