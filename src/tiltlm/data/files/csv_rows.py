"""Rows of tables as text: cells by commas, semicolons, tabs or bars, told apart by the file itself."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from tiltlm.data.files.encodings import LONGEST, UNDECODABLE, TextFile
from tiltlm.data.files.raw_rows import UNREADABLE, Row, Rows, Tell
from tiltlm.errors import DataError
from tiltlm.runs.data_account import DroppedRow

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# Said of what cannot be read, as some programs escape quotes so.
_BACKSLASHES = '. Quotes seem to be written \\" within cells, where CSV writes two of them'
# A first line by which Excel is told the separator.
_DECLARED = re.compile(r"\s*sep=(.)\s*", re.IGNORECASE)


def csv_rows(stream: Any, text: TextFile, tell: Tell) -> Rows:
    """The rows below a line of column names, each named by the line that it starts on (`pairs.csv:2`)."""
    lines = text.lines(stream)
    declared = _DECLARED.fullmatch(text.head.lstrip("\ufeff").partition("\n")[0])
    if declared:
        next(lines)
    separator = declared[1] if declared else _separator(text.head)
    if separator not in (",", "\t"):
        tell(f"{text.name}: cells are separated by {_SEPARATORS.get(separator, repr(separator))}.")
    records = _records(lines, text, separator, first_line=2 if declared else 1)
    place, header = next(records, (text.name, []))
    if isinstance(header, str):
        raise DataError(f"{place}: the line of column names is {header}.")
    columns = [column.strip() for column in header]
    named = [column for column in columns if column]
    if len(set(named)) < len(named):
        raise DataError(f"{place}: a column name appears twice: {', '.join(columns)}.")
    for place, cells in records:
        if isinstance(cells, str):
            yield DroppedRow(place, UNREADABLE, cells)
        elif len(cells) != len(columns):
            yield DroppedRow(place, UNREADABLE, f"{len(cells)} fields, where the header has {len(columns)}")
        else:
            yield Row(place, dict(zip(columns, cells, strict=True)))


def _separator(head: str) -> str:
    """The separator that cuts the header, and most of the first records like it, into several cells."""
    return max(_SEPARATORS, key=lambda separator: _regularity(head, separator))


def _regularity(head: str, separator: str) -> tuple[float, int]:
    """The share of records with as many cells as the header, and how many those are; 0 where it is one."""
    records: list[list[str]] = []
    # Cut off within quotes, or quoted in another way: the records before tell enough.
    with suppress(csv.Error):
        records += islice(csv.reader(head.splitlines(keepends=True), delimiter=separator, strict=True), 50)
    cells = [len(record) for record in records if record]
    if not cells or cells[0] < 2:
        return 0.0, 0
    return cells.count(cells[0]) / len(cells), cells[0]


def _records(
    lines: Iterable[str], text: TextFile, separator: str, first_line: int
) -> Iterator[tuple[str, list[str] | str]]:
    """Where each record starts, and its cells, or what is wrong with it. Blank lines are no records."""
    csv.field_size_limit(LONGEST)  # 128 KiB otherwise; long texts are no fault
    # Strict, or a quote that is never closed would swallow the lines after it in silence.
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        place = f"{text.name}:{reader.line_num + first_line}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            hint = _BACKSLASHES if '\\"' in text.head else ""
            yield place, f"not valid CSV up to line {reader.line_num + first_line - 1}: {error}{hint}"
            continue
        if cells is None:
            return
        if any(UNDECODABLE.search(cell) for cell in cells):
            yield place, text.why_no_text("".join(cells))
        elif cells:
            yield place, cells
