"""Rows of JSON text, however it is laid out: one object a line, one list, or objects one after the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from tiltlm.data.files.encodings import UNDECODABLE, TextFile
from tiltlm.data.files.raw_rows import UNREADABLE, Row, Rows, as_row
from tiltlm.data.formats.notation import holds_messages
from tiltlm.errors import DataError
from tiltlm.runs.data_account import DroppedRow

# The most characters one item of a list may have.
_LONGEST_ITEM = 1 << 24
# A value that ends this near to the end of what has been read may only be cut off there.
_NEAR = 16


def _object(items: list[tuple[str, object]]) -> dict[str, object]:
    """An object of its keys and values. Of a key that appears twice the last value would hide the other."""
    found = dict(items)
    if len(found) < len(items):
        keys = [key for key, _ in items]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key `{twice}` appears twice in an object")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_FIRST_KEY = re.compile(r'\{\s*("(?:[^"\\]|\\.)*")')
# Where an object may begin as long as no first key is known.
_ANY_OBJECT = re.compile(r'(?<=[,\r\n])\s*\{\s*"[^"]*"\s*:')
_SPACE = " \t\r\n"

# Everything json.loads raises: JSONDecodeError and over-long integers are ValueErrors; nesting has its limit.
_JSON_ERRORS = (ValueError, RecursionError)

_EXPECTED = (
    'expected a list of objects, [{"prompt": …, "chosen": …, "rejected": …}, …], or such objects one after the other. '
    "A single object of columns, or with the list inside, is not read."
)


def json_rows(stream: Any, text: TextFile) -> Rows:
    """The rows of a file that may be one list, lines or several objects.

    Raises:
        DataError: it is something else, such as one object.
    """
    head = text.head.lstrip()
    if head.startswith("["):
        yield from _list_rows(stream, text)
        return
    if not head.startswith("{"):
        raise DataError(f"{text.name}: {_EXPECTED}")
    rows = _line_rows(stream, text) if _is_value(_first_line(head)) else _object_rows(stream, text)
    first = list(islice(rows, 2))
    if len(first) == 1 and isinstance(first[0], Row) and not _is_row(first[0]):
        raise DataError(f"{text.name}: {_EXPECTED}{_inside(first[0])}")
    yield from chain(first, rows)


def json_lines_rows(stream: Any, text: TextFile) -> Rows:
    """The rows of a file that should hold one object a line; a list or objects over several lines are read, too."""
    head = text.head.lstrip()
    line = _first_line(head)
    whole = _is_value(line)
    if head.startswith("[") and not (whole and head[len(line) :].strip()):
        return _list_rows(stream, text)
    if head.startswith("{") and not whole and _opens_object(head, line):
        return _object_rows(stream, text)
    return _line_rows(stream, text)


def sniffed_rows(stream: Any, text: TextFile) -> Rows:
    """The rows of a file whose name does not tell what it holds, if it is JSON.

    Raises:
        DataError: it is not.
    """
    if not holds_json(text.head):
        raise DataError(f"{text.name}: files of this kind are read where they hold JSON, and this one does not.")
    return json_lines_rows(stream, text)


def holds_json(head: str) -> bool:
    """Whether a text that begins like this may be a list of objects, or objects."""
    return re.match(r"\s*(\[\s*)?\{\s*\"|\s*\[\s*\]", head.lstrip("\ufeff")) is not None


def _first_line(head: str) -> str:
    """The first line, or all that was looked at where that is still within it."""
    return re.split(r"[\r\n]", head, maxsplit=1)[0]


def _is_value(line: str) -> bool:
    try:
        json.loads(line)
    except _JSON_ERRORS:
        return False
    return True


def _opens_object(head: str, line: str) -> bool:
    """Whether an object goes on below its first line; a line that is merely broken is followed by others."""
    if line == head:
        return False
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(line.rstrip()) - 1
    except _JSON_ERRORS:
        return False
    return False


def _is_row(row: Row) -> bool:
    """Whether a single object is a row: its lists, if any, are chats, and no columns or rows."""
    return all(holds_messages(value) for value in row.fields.values() if isinstance(value, list)) and any(
        isinstance(value, str) or holds_messages(value) for value in row.fields.values()
    )


def _inside(row: Row) -> str:
    """Where a single object seems to hold the rows."""
    lists = {key: value for key, value in row.fields.items() if isinstance(value, list) and value}
    tables = [key for key, value in lists.items() if isinstance(value[0], dict)]
    if len(tables) == 1:
        return f" Keep the list under `{tables[0]}` alone in the file."
    return " Write its columns as rows, e.g. with pandas.DataFrame(...).to_json(orient='records')." if lists else ""


def _line_rows(stream: Any, text: TextFile) -> Rows:
    for number, line in enumerate(text.lines(stream), start=1):
        place = f"{text.name}:{number}"
        if UNDECODABLE.search(line):
            yield DroppedRow(place, UNREADABLE, text.not_text)
        elif line.strip():
            try:
                yield as_row(place, _DECODER.decode(line))
            except _JSON_ERRORS as error:
                yield DroppedRow(place, UNREADABLE, f"not valid JSON: {error}")


def _list_rows(stream: Any, text: TextFile) -> Rows:
    number = 0
    for number, item in enumerate(_Items(text.pieces(stream)).of_list(), start=1):
        yield _item_row(f"{text.name}#{number}", item, text)


def _object_rows(stream: Any, text: TextFile) -> Rows:
    for item in _Items(text.pieces(stream)).in_succession():
        yield _item_row(f"{text.name}:{item.line}", item, text)


@dataclass(frozen=True, slots=True)
class _Item:
    """A value as it stands in the text: the line it starts on, its text, and the value or what is wrong with it."""

    line: int
    source: str
    value: object
    wrong: str | None = None


def _item_row(place: str, item: _Item, text: TextFile) -> Row | DroppedRow:
    if item.wrong is None and not UNDECODABLE.search(item.source):
        return as_row(place, item.value)
    return DroppedRow(place, UNREADABLE, f"not valid JSON: {item.wrong}" if item.wrong else text.not_text)


class _Items:
    """Values of a text that arrives in pieces, holding little more of it than one value.

    After a value that is broken the next one is found again: by its first key, which the rows of a file share.
    """

    def __init__(self, pieces: Iterator[str]) -> None:
        self.pieces = pieces
        self.buffer = next(pieces, "").removeprefix("\ufeff")
        self.at = 0
        self.line = 1
        self.first_keys: set[str] = set()

    def of_list(self) -> Iterator[_Item]:
        self._skip_space()
        self._move(self.at + 1)
        closed = self._skip_space() and self.buffer[self.at] == "]"
        self._move(self.at + int(closed))
        while not closed:
            item, closed = self._next(delimiters=",]")
            yield item
        self._skip_space()
        if self.at < len(self.buffer):
            yield _Item(self.line, "", None, "there is more text after the end of the list")

    def in_succession(self) -> Iterator[_Item]:
        while self._skip_space():
            # A list without its brackets has commas between the objects.
            if self.first_keys and self.buffer[self.at] == ",":
                self._move(self.at + 1)
                continue
            item, _ = self._next(delimiters="")
            yield item

    def _next(self, delimiters: str) -> tuple[_Item, bool]:
        """The next value, and whether it is the last one."""
        self._skip_space()
        line = self.line
        while True:
            try:
                value, end = _DECODER.raw_decode(self.buffer, self.at)
                after = self._after(end)
                # Without its delimiter even a whole-looking item may be cut off.
                if delimiters and self.buffer[after : after + 1] not in tuple(delimiters):
                    raise json.JSONDecodeError("Expecting ',' or ']'", self.buffer, after)
            except _JSON_ERRORS as error:
                if self._may_be_cut(error) and self._more():
                    continue
                return self._broken(line, error)
            source = self.buffer[self.at : end]
            if key := _FIRST_KEY.match(source):
                self.first_keys.add(key[1])
            last = bool(delimiters) and self.buffer[after] == "]"
            self._move(after + 1 if delimiters else end)
            return _Item(line, source, value), last

    def _after(self, end: int) -> int:
        while end < len(self.buffer) and self.buffer[end] in _SPACE:
            end += 1
        return end

    def _may_be_cut(self, error: Exception) -> bool:
        if not isinstance(error, json.JSONDecodeError):
            return False
        unfinished = error.msg.startswith("Unterminated string") or error.pos > len(self.buffer) - _NEAR
        return unfinished and len(self.buffer) - self.at <= _LONGEST_ITEM

    def _broken(self, line: int, error: Exception) -> tuple[_Item, bool]:
        """What is wrong with the value, and whether nothing comes after it; moves on to the next one."""
        if key := _FIRST_KEY.match(self.buffer, self.at):
            self.first_keys.add(key[1])
        message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        if isinstance(error, json.JSONDecodeError):
            message += f" at line {self.line + self.buffer.count(chr(10), self.at, error.pos)}"
        found = self._find_next()
        return _Item(line, "", None, message if found else f"{message}; nothing is read from here on"), not found

    def _find_next(self) -> bool:
        """Moves to the next value that begins with a first key known so far."""
        keys = "|".join(re.escape(key) for key in self.first_keys)
        start = re.compile(rf"\{{\s*(?:{keys})\s*:") if keys else _ANY_OBJECT
        self._move(min(self.at + 1, len(self.buffer)))
        while True:
            if match := start.search(self.buffer, self.at):
                self._move(match.start())
                return True
            # The beginning of the next one may be cut off, too.
            self._move(max(self.at, len(self.buffer) - 200))
            if not self._more():
                self._move(len(self.buffer))
                return False

    def _more(self) -> bool:
        """Takes in another piece; False where there is none."""
        piece = next((piece for piece in self.pieces if piece), "")
        self.buffer, self.at = self.buffer[self.at :] + piece, 0
        return bool(piece)

    def _skip_space(self) -> bool:
        """Moves over white space; False at the end of the text."""
        while True:
            self._move(self._after(self.at))
            if self.at < len(self.buffer):
                return True
            if not self._more():
                return False

    def _move(self, to: int) -> None:
        self.line += self.buffer.count("\n", self.at, to)
        self.at = to
