"""What is told of a sweep's members: how each goes, on one line where it matters, and all of it in a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tiltlm.pipeline.reporter import Advance, Reporter, timed
from tiltlm.text.masking import masked


class MemberReporter:
    """Keeps a member's lines in `log.txt` of the sweep, and shows its progress with its place in the sweep.

    Args:
        whole: is told of the sweep.
        place: `3/9`.
        log: the file that lines are added to.
    """

    def __init__(self, whole: Reporter, place: str, log: Path) -> None:
        self.stages: dict[str, float] = {}
        self._whole, self._place, self._log = whole, place, log

    def say(self, text: str) -> None:
        """A line, into the file."""
        with self._log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"[{self._place}] {masked(text)}\n")

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """A stage of the member's work, into the file too; timed."""
        self.say(title)
        with timed(self.stages, name):
            yield

    def progress(self, what: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """As that of the sweep's reporter, with the member's place."""
        return self._whole.progress(f"{self._place} {what}", total, unit)
