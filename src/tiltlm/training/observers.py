"""Who is told of a run's rows: the metrics file, the console, and whoever else wants to know."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tiltlm.runs.rows import EvalRow, TrainRow, metrics_line
from tiltlm.storage.whole_files import naming

logger = logging.getLogger(__name__)

Row = TrainRow | EvalRow


Observer = Callable[[Row], None]
"""Is given every row of a run as it is made."""


class MetricsLog:
    """Appends rows to `metrics.jsonl`; each is on disk before the next step starts.

    Args:
        path: the file. What it holds already is kept: a run that goes on writes on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def __call__(self, row: Row) -> None:
        with naming(self._path):
            self._file.write(metrics_line(row))
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with naming(self._path):
            self._file.close()


class Observers:
    """Tells several observers of each row: first those without which a run makes no sense, then the others.

    Args:
        required: what one of these raises ends the run.
        optional: one of these that raises is named in a warning and told nothing more.
    """

    def __init__(self, required: Sequence[Observer], optional: Sequence[Observer] = ()) -> None:
        self._required = tuple(required)
        self._optional = tuple(optional)

    def __call__(self, row: Row) -> None:
        for observer in self._required:
            observer(row)
        for observer in self._optional:
            try:
                observer(row)
            except Exception:
                # Whatever a stranger's code raises: training is worth more than being watched.
                logger.warning("%r failed and is told nothing more of this run", observer, exc_info=True)
                self._optional = tuple(other for other in self._optional if other is not observer)
