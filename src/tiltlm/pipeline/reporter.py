"""Who is told how the work goes: a person at a console, a log, or nobody."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from tiltlm.text.masking import masked

Advance = Callable[[int], None]

logger = logging.getLogger("tiltlm")


class Reporter(Protocol):
    """Is told what is done, and keeps how long each stage took.

    stages: seconds of each stage, by name.
    """

    stages: dict[str, float]

    def say(self, text: str) -> None:
        """A line."""

    def stage(self, name: str, title: str) -> AbstractContextManager[None]:
        """A stage of the work: announced and timed."""

    def progress(self, what: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """Counts up to `total`; gives a function to call with how many more are done."""


@contextmanager
def timed(stages: dict[str, float], name: str) -> Iterator[None]:
    """Keeps how many seconds it took under the name of a stage, however it ended."""
    start = time.perf_counter()
    try:
        yield
    finally:
        stages[name] = time.perf_counter() - start


class LogReporter:
    """Tells Python's `logging`, under the name `tiltlm`, at the level INFO: silent unless a program wants to hear."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}

    def say(self, text: str) -> None:
        logger.info("%s", masked(text.strip()))

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        logger.info("%s", masked(title))
        with timed(self.stages, name):
            yield

    @contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Advance]:
        logger.debug("%s: %d %s", what, total, unit)
        yield lambda more: None
