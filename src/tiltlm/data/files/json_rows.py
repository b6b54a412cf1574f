"""Rows of JSON text, however it is laid out: one object a line, one list, or objects one after the other."""

from __future__ import annotations

import json
import re
from itertools import chain, islice
from typing import Any

from tiltlm.data.files.encodings import UNDECODABLE, TextFile
from tiltlm.data.files.json_items import DECODER, JSON_ERRORS, Item, Items
from tiltlm.data.files.raw_rows import UNREADABLE, Row, Rows, as_row
from tiltlm.data.formats.notation import holds_messages
from tiltlm.errors import DataError
from tiltlm.runs.data_account import DroppedRow

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
    except JSON_ERRORS:
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
    except JSON_ERRORS:
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
            yield DroppedRow(place, UNREADABLE, text.why_no_text(line))
        elif line.strip():
            try:
                yield as_row(place, DECODER.decode(line))
            except JSON_ERRORS as error:
                yield DroppedRow(place, UNREADABLE, f"not valid JSON: {error}")


def _list_rows(stream: Any, text: TextFile) -> Rows:
    number = 0
    for number, item in enumerate(Items(text.pieces(stream)).of_list(), start=1):
        yield _item_row(f"{text.name}#{number}", item, text)


def _object_rows(stream: Any, text: TextFile) -> Rows:
    line = number = 0
    for item in Items(text.pieces(stream)).in_succession():
        line, number = item.line, number + 1 if item.line == line else 1
        # Of several on one line the second is `pairs.json:1.2`.
        yield _item_row(f"{text.name}:{line}" + (f".{number}" if number > 1 else ""), item, text)


def _item_row(place: str, item: Item, text: TextFile) -> Row | DroppedRow:
    if item.wrong is None and not UNDECODABLE.search(item.source):
        return as_row(place, item.value)
    return DroppedRow(place, UNREADABLE, f"not valid JSON: {item.wrong}" if item.wrong else text.why_no_text(""))
