"""Standard output that may fail (its reader gone, its disk full), and errors that a terminal does not obey."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from tiltlm.text.masking import masked
from tiltlm.text.visible import visible


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


class InertErrors:
    """Standard error as it is, but that hidden characters are shown and secrets masked in whatever is written there.

    Libraries warn in words of the files they read, such as a class that a model's configuration names.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        # Of what a terminal obeys, the two that progress bars are drawn with stay.
        pieces = _DRAWING.split(text)
        self._stream.write("".join(piece if at % 2 else visible(masked(piece)) for at, piece in enumerate(pieces)))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_DRAWING = re.compile(r"(\r|\x1b\[A)")


@contextlib.contextmanager
def inert_errors() -> Iterator[None]:
    """Puts `InertErrors` in the place of `sys.stderr`, where there is one."""
    before = sys.stderr
    if before is None:
        yield
        return
    sys.stderr = cast(TextIO, InertErrors(before))
    try:
        yield
    finally:
        sys.stderr = before


def _discard(stream: TextIO) -> None:
    """Lets Python end without a complaint of its own about output that nobody can take."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file, as tests have
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
