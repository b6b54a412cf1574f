"""Files of answers: JSON lines, one a prompt, each complete in itself. Read strictly, written so that a crash loses a
line at most."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tiltlm.answers.answer_rows import AnswerRow, SampledAnswer
from tiltlm.answers.line_parts import (
    answers_of,
    compared_of,
    drawn_of,
    judge_of,
    prompt_of,
    refuse,
    require_known,
    tools_of,
)
from tiltlm.data.examples import Text
from tiltlm.data.files.json_items import DECODER, JSON_ERRORS
from tiltlm.data.files.raw_rows import kind_of
from tiltlm.data.formats.fields import RowError
from tiltlm.errors import DataError

LINE = ("id", "prompt", "tools", "answers", "drawn", "judge", "compared")
"""The keys that a line may have."""
SYNC_SECONDS = 5.0
"""How long what was appended may wait for the disk."""
_BOM = b"\xef\xbb\xbf"
_SHOWN_ID = 60


def read_answers(path: Path) -> list[AnswerRow]:
    """All lines of a file of answers; raises as `answers_in`."""
    return list(answers_in(path))


def answers_in(path: Path) -> Iterator[AnswerRow]:
    """The lines of a file of answers, one after another.

    Raises:
        DataError: it cannot be read, is empty, or something in it is not understood: names file, line and id.
    """
    some = False
    try:
        with path.open("rb") as stream:
            for row in _rows(stream, path):
                some = True
                yield row
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not some:
        raise DataError(f"{path} holds no answers.")


def _rows(stream: IO[bytes], path: Path) -> Iterator[AnswerRow]:
    seen: dict[str, int] = {}
    for number, line in enumerate(stream, start=1):
        content = line.removeprefix(_BOM) if number == 1 else line
        if not content.strip():
            continue
        row = _row(content, path, number)
        if row.id in seen:
            raise DataError(f"{path}, line {number}: the id `{row.id}` is that of line {seen[row.id]}, too.")
        seen[row.id] = number
        yield row


def _row(line: bytes, path: Path, number: int) -> AnswerRow:
    place = f"{path}, line {number}"
    try:
        value = DECODER.decode(line.decode("utf-8"))
    except JSON_ERRORS as error:
        cut = (
            ""
            if line.endswith(b"\n")
            else (
                " It is the last line and may be cut short: go on with the command that wrote it, or take the line out."
            )
        )
        raise DataError(f"{place}: not valid JSON in UTF-8: {error}.{cut}") from error
    if not isinstance(value, dict):
        raise DataError(f"{place}: {kind_of(value)}, and a line should be an object with `prompt` and `answers`.")
    id = value.get("id")
    if isinstance(id, str):
        place += f" (id `{id[:_SHOWN_ID]}`)"
    try:
        return _as_row(value, f"{path.name}:{number}")
    except RowError as problem:
        raise DataError(f"{place}: {problem.detail}.") from problem


def _as_row(value: dict[str, object], otherwise: str) -> AnswerRow:
    """The row of a line. otherwise: its id where it has none."""
    require_known(value, LINE, "a line")
    id = value.get("id")
    if id is None:
        id = otherwise
    elif not isinstance(id, str):
        raise refuse(f"`id` is {kind_of(id)}, and should be text")
    elif not id.strip():
        raise refuse("`id` is empty")
    if "answers" not in value or "prompt" not in value:
        raise refuse(f"`{'prompt' if 'prompt' not in value else 'answers'}` is missing")
    answers, prompt, tools = answers_of(value["answers"]), prompt_of(value["prompt"]), tools_of(value.get("tools"))
    if tools is not None and isinstance(prompt, str):
        raise refuse("`tools` are given to a chat template, and `prompt` is text: write it as a list of messages")
    return AnswerRow(
        id=id,
        prompt=prompt,
        tools=tools,
        answers=answers,
        drawn=drawn_of(value.get("drawn")),
        judge=judge_of(value.get("judge")),
        compared=compared_of(value.get("compared"), len(answers)),
    )


def to_line(row: AnswerRow) -> str:
    """The line of a row, without its end. `read_answers` reads the same row from it.

    Raises:
        DataError: a text holds half a character, or a number is not finite.
    """
    line: dict[str, object] = {
        "id": row.id,
        "prompt": prompt_value(row.prompt),
        "tools": None if row.tools is None else json.loads(row.tools),
        "answers": [_answer_value(answer) for answer in row.answers],
    }
    if row.drawn is not None:
        line["drawn"] = {key: item for key, item in asdict(row.drawn).items() if item is not None}
    if row.judge is not None:
        line["judge"] = {"name": row.judge.name, **row.judge.settings}
    if row.compared is not None:
        line["compared"] = [asdict(one) for one in row.compared]
    return json_line(line, row.id)


def json_line(line: object, id: str) -> str:
    """JSON text without line breaks, which UTF-8 can write.

    Raises:
        DataError: it cannot, or a number is not finite.
    """
    try:
        text = json.dumps(line, ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{id!r}: its texts hold half a character ({error.reason}), which no file can.") from error
    except ValueError as error:
        raise DataError(f"{id}: {error}.") from error
    return text


def prompt_value(prompt: Text) -> object:
    """A prompt as a value of JSON: text, or a list of messages."""
    if isinstance(prompt, str):
        return prompt
    return [
        {"role": message.role, "content": message.content, **{key: json.loads(text) for key, text in message.further}}
        for message in prompt
    ]


def _answer_value(answer: SampledAnswer) -> dict[str, object]:
    value = {key: item for key, item in asdict(answer).items() if item is not None}
    if answer.why is not None:
        value["reward"] = answer.reward
    return value


class AnswerAppender:
    """A file of answers that grows by whole lines, of one process at a time.

    What a crash left of a last line is cut off when the file is opened: its work is to be done again.
    """

    def __init__(self, path: Path) -> None:
        """path: a new file, or one that is to be gone on with.

        Raises:
            DataError: it cannot be written, or another process is at work on it.
        """
        self.path = path
        self._synced = time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream: IO[bytes] = path.open("a+b")
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error
        try:
            _lock(self._stream, path)
            _cut_last(self._stream)
        except BaseException:
            self._stream.close()
            raise

    def existing(self) -> Iterator[AnswerRow]:
        """The lines that are there, one after another.

        Raises:
            DataError: one of them is not understood.
        """
        self._stream.seek(0)
        yield from _rows(self._stream, self.path)

    @cached_property
    def rows(self) -> list[AnswerRow]:
        """All lines that were there when they were first asked for; raises as `existing`."""
        return list(self.existing())

    def append(self, row: AnswerRow) -> None:
        """Adds a line.

        Raises:
            DataError: it holds what a file cannot.
            OSError: the disk is full.
        """
        self._stream.write(to_line(row).encode("utf-8") + b"\n")
        self._stream.flush()
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self.sync()

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
        self.close()


def _cut_last(stream: IO[bytes]) -> None:
    """Cuts off what follows the last end of a line."""
    end = stream.seek(0, os.SEEK_END)
    start = end
    while start > 0:
        step = min(1 << 16, start)
        start = stream.seek(start - step)
        place = stream.read(step).rfind(b"\n")
        if place >= 0:
            start += place + 1
            break
    if start < end:
        stream.truncate(start)


def _lock(stream: IO[Any], path: Path) -> None:
    """The system lets go of the lock when the file is closed, however the process ends."""
    with contextlib.suppress(ImportError):  # no such locks on this system
        import fcntl

        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another process is writing {path}: wait until it has ended.") from error
