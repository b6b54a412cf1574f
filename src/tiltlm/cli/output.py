"""Standard output that may fail: its reader gone (`| head`), its disk full."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO, cast


class WatchedOutput(io.TextIOBase):
    """A stream in front of another that remembers the first failure to write.

    Attributes:
        carry_on: after a failure, drop what is written instead of raising: work whose result does not lie in the
            output goes on without it.
        failure: the first failure, or None.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.carry_on = False
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def __getattribute__(self, name: str) -> Any:
        # Descriptors of the base class, which would hide the stream's own.
        return (
            getattr(self._stream, name) if name in ("encoding", "errors", "buffer") else super().__getattribute__(name)
        )

    def _try(self, work: Callable[[], object]) -> None:
        if self.failure is not None and self.carry_on:
            return
        try:
            work()
        except OSError as error:
            self.failure = self.failure or error
            if not self.carry_on:
                raise


@contextlib.contextmanager
def watched_output() -> Iterator[WatchedOutput]:
    """Watches `sys.stdout`; on leaving, what still waits is written, so that a failure is known before Python ends."""
    before = sys.stdout
    with contextlib.ExitStack() as opened:
        # There is none where it was closed (`>&-`).
        stream = before or opened.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character ends no run
        output = WatchedOutput(stream)
        sys.stdout = cast(TextIO, output)
        try:
            yield output
        finally:
            sys.stdout = before
            with contextlib.suppress(OSError):
                output.flush()
            if output.failure is not None:
                _discard(stream)


def _discard(stream: TextIO) -> None:
    """Lets Python end without a complaint of its own about output that nobody can take."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file, as tests have
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
