"""Files of answers that grow line by line, so that a crash loses a line at most, and nobody else's file is touched."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tiltlm.answers.answer_file import rows_in, to_line
from tiltlm.answers.answer_rows import AnswerRow
from tiltlm.data.files.json_items import DECODER, JSON_ERRORS
from tiltlm.errors import DataError

SYNC_SECONDS = 5.0
"""How long what was appended may wait for the disk."""
_BEGINNING = b'{"id": "'
"""Of every line that was written here."""


class AnswerAppender:
    """A file of answers that grows by whole lines, of one process at a time.

    What a crash left of a last line is cut off, as its work is to be done again; but only once all whole lines before
    it are understood and the first line is appended, or the file is left without an error. A file of anything else
    stays as it is.
    """

    def __init__(self, path: Path) -> None:
        """path: a new file, or one that is to be gone on with.

        Raises:
            DataError: it cannot be written, another process is at work on it, or it holds no answers but something
                else.
        """
        self.path = path
        self._synced = time.monotonic()
        self._understood = self._ready = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream: IO[bytes] = path.open("a+b")
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error
        try:
            _lock(self._stream, path)
            self._end, self._unended = _end_of_lines(self._stream, path)
        except BaseException:
            self._stream.close()
            raise

    def existing(self) -> Iterator[AnswerRow]:
        """The lines that are there, one after another. A last one that was cut is none.

        Raises:
            DataError: one of them is not understood.
        """
        yield from rows_in(self._lines(), self.path)
        self._understood = True

    def _lines(self) -> Iterator[bytes]:
        self._stream.seek(0)
        left = self._end
        while left > 0:
            line = self._stream.readline()
            left -= len(line)
            yield line

    @cached_property
    def rows(self) -> list[AnswerRow]:
        """All lines that were there when the file was opened; raises as `existing`."""
        return list(self.existing())

    def append(self, row: AnswerRow) -> None:
        """Adds a line.

        Raises:
            DataError: it holds what a file cannot, or a line that was there is not understood.
            OSError: the disk is full.
        """
        line = to_line(row).encode("utf-8") + b"\n"
        self._make_ready()
        self._stream.write(line)
        self._stream.flush()
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self.sync()

    def _make_ready(self) -> None:
        """Ends the last line, or cuts off what is left of one; raises as `existing`."""
        if self._ready:
            return
        if not self._understood:
            for _ in self.existing():
                pass
        if self._stream.seek(0, os.SEEK_END) > self._end:
            self._stream.truncate(self._end)
        elif self._unended:
            self._stream.write(b"\n")
        self._ready = True

    def sync(self) -> None:
        """Waits until all lines are on the disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """All lines are on the disk, and others may write."""
        try:
            self.sync()
        finally:
            self._stream.close()

    def __enter__(self) -> AnswerAppender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._make_ready()
        finally:
            self.close()


def _end_of_lines(stream: IO[bytes], path: Path) -> tuple[int, bool]:
    """Where the lines end that are to be kept, in bytes, and whether the last of them lacks its end.

    Raises:
        DataError: there is no line, and what is there was not begun as one of answers.
    """
    end = stream.seek(0, os.SEEK_END)
    start = end
    while start > 0:
        step = min(1 << 16, start)
        start = stream.seek(start - step)
        place = stream.read(step).rfind(b"\n")
        if place >= 0:
            start += place + 1
            break
    stream.seek(start)
    begun = stream.read(len(_BEGINNING))
    if start == 0 and not _BEGINNING.startswith(begun):
        # Of a line of somebody's own the whole is needed to say what it is, and a cut one of anything else is not ours.
        raise DataError(f"{path} holds something else than answers: name another --output. It is left as it is.")
    if start == end or not begun.startswith(b"{"):
        return start, False
    stream.seek(start)
    try:
        DECODER.decode(stream.read().decode("utf-8"))
    except JSON_ERRORS:
        return start, False
    return end, True


def _lock(stream: IO[Any], path: Path) -> None:
    """The system lets go of the lock when the file is closed, however the process ends."""
    with contextlib.suppress(ImportError):  # no such locks on this system
        import fcntl

        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another process is writing {path}: wait until it has ended.") from error
