"""From one file to its rows, one at a time. What cannot be read is said, row by row, and never ends the reading.

A row is named by its file and, in text files of one row per line, its line (`pairs.jsonl:17`); elsewhere by its
number, counted from 1 (`pairs.json#4`).
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tiltlm.errors import DataError
from tiltlm.records import DroppedPair

UNREADABLE = "unreadable row"

# Bytes of a .json file read at a time, and the most characters one of its items may have.
_PIECE = 1 << 16
_LONGEST_ITEM = 1 << 24

_BYTE_ORDER_MARK = codecs.BOM_UTF8
_DECODER = json.JSONDecoder()
_EMPTY_ARRAY = re.compile(r"\[\s*\]")
# What `surrogateescape` makes of bytes that are not UTF-8.
_UNDECODABLE = re.compile("[\udc80-\udcff]")

# Everything json.loads raises: JSONDecodeError and over-long integers are ValueErrors; nesting has its limit.
_JSON_ERRORS = (ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in the data: its name, and its fields by column."""

    id: str
    fields: Mapping[str, object]


Rows = Iterator[Row | DroppedPair]


def read_rows(path: Path, name: str | None = None) -> Rows:
    """The rows of a data file, streamed; each unreadable one as a DroppedPair in its place.

    path: a .json (array of objects), .jsonl, .ndjson, .csv or .parquet file; all but the last also with .gz.
    name: what the rows' ids call the file; by default its name.

    Raises:
        DataError: the file cannot be opened, is of an unknown kind, or is laid out in a way that gives no rows.
    """
    suffix = data_suffix(path)
    if suffix is None:
        raise DataError(f"{path}: files of this kind are not read. Known kinds: {known_kinds()}.")
    name = name or path.name
    place = "its beginning"
    try:
        with _open(path) as stream:
            for row in _READERS[suffix](stream, name):
                place = row.id
                yield row
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield DroppedPair(name, UNREADABLE, f"damaged gzip file, nothing is read after {place}: {error}")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def data_suffix(path: Path) -> str | None:
    """The suffix that tells how a file is read, without `.gz`; None if it is no data file."""
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    known = suffix in _READERS and not name.endswith(".parquet.gz")
    return suffix if known else None


def known_kinds() -> str:
    return ".json, .jsonl, .ndjson and .csv, each also with .gz, and .parquet"


def kind_of(value: object) -> str:
    """What a JSON value is, in words for a message."""
    if value is None:
        return "null"
    words: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return words.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _open(path: Path) -> io.BufferedReader | gzip.GzipFile:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _row(place: str, value: object) -> Row | DroppedPair:
    if isinstance(value, dict):
        return Row(place, value)
    return DroppedPair(place, UNREADABLE, f"{kind_of(value)}, not an object of columns")


def _jsonl_rows(stream: Iterable[bytes], name: str) -> Rows:
    for number, line in enumerate(stream, start=1):
        place = f"{name}:{number}"
        try:
            text = (line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line).decode("utf-8")
            if text.strip():
                yield _row(place, json.loads(text))
        except UnicodeDecodeError as error:
            yield DroppedPair(place, UNREADABLE, f"not UTF-8 text: {error.reason} at byte {error.start}")
        except _JSON_ERRORS as error:
            yield DroppedPair(place, UNREADABLE, f"not valid JSON: {error}")


def _json_rows(stream: Any, name: str) -> Rows:
    head = stream.peek(_PIECE).removeprefix(_BYTE_ORDER_MARK).lstrip()
    if head.startswith(b"["):
        return _array_rows(stream, name)
    first, second = stream.readline(_LONGEST_ITEM), stream.readline(_LONGEST_ITEM)
    if _is_object(first) and second.strip():
        return _jsonl_rows(chain([first, second], stream), name)  # JSON lines often go by .json
    raise DataError(
        f'{name}: expected a list of objects, [{{"prompt": …, "chosen": …, "rejected": …}}, …], or one such object '
        "per line. A single object, such as one of columns or with the list inside, is not read."
    )


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.removeprefix(_BYTE_ORDER_MARK)), dict)
    except _JSON_ERRORS:
        return False


def _array_rows(stream: Any, name: str) -> Rows:
    number = 0
    try:
        for number, (source, item) in enumerate(_array_items(_text_pieces(stream)), start=1):
            place = f"{name}#{number}"
            if _UNDECODABLE.search(source):
                yield DroppedPair(place, UNREADABLE, "not UTF-8 text")
            else:
                yield _row(place, item)
    except _JSON_ERRORS as error:
        detail = f"not valid JSON, nothing is read from here on: {error}"
        yield DroppedPair(f"{name}#{number + 1}", UNREADABLE, detail)


def _text_pieces(stream: Any) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
    # read1 hands over what there is, so that nothing decoded before a damage is lost with it.
    while piece := stream.read1(_PIECE):
        if text := decoder.decode(piece):
            yield text
    yield decoder.decode(b"", final=True)


def _array_items(pieces: Iterator[str]) -> Iterator[tuple[str, object]]:
    """The text and value of each item of a JSON array, holding little more text than one item.

    Raises:
        ValueError, RecursionError: at an item that cannot be decoded.
    """
    buffer = next(pieces).lstrip()
    empty = _EMPTY_ARRAY.match(buffer)
    at, closed = (empty.end(), True) if empty else (1, False)
    while not closed:
        try:
            item, end, closed = _item(buffer, at)
        except _JSON_ERRORS:
            # Wrong, or only cut off: with more text it may be whole.
            more = next(pieces, "")
            if not more or len(buffer) - at > _LONGEST_ITEM:
                raise
            buffer, at = buffer[at:] + more, 0
            continue
        yield buffer[at:end], item
        at = end
    if any(text.strip() for text in chain([buffer[at:]], pieces)):
        raise ValueError("there is more text after the end of the list")


def _item(buffer: str, at: int) -> tuple[object, int, bool]:
    """The array item that starts at `at`, where the next one starts, and whether the array ends instead."""
    item, end = _DECODER.raw_decode(buffer, _skip_space(buffer, at))
    end = _skip_space(buffer, end)
    # Without its delimiter even a whole-looking item may be cut off.
    if buffer[end : end + 1] not in (",", "]"):
        raise json.JSONDecodeError("expecting ',' or ']'", buffer, end)
    return item, end + 1, buffer[end] == "]"


def _skip_space(buffer: str, at: int) -> int:
    while at < len(buffer) and buffer[at] in " \t\r\n":
        at += 1
    return at


def _csv_rows(stream: Iterable[bytes], name: str) -> Rows:
    records = _csv_records(stream, name)
    place, header = next(records, (name, []))
    if isinstance(header, str):
        raise DataError(f"{place}: the line of column names is {header}.")
    columns = [column.strip() for column in header]
    if len(set(columns)) < len(columns):
        raise DataError(f"{place}: a column name appears twice: {', '.join(columns)}.")
    for place, cells in records:
        if isinstance(cells, str):
            yield DroppedPair(place, UNREADABLE, cells)
        elif len(cells) != len(columns):
            yield DroppedPair(place, UNREADABLE, f"{len(cells)} fields, where the header has {len(columns)}")
        else:
            yield Row(place, dict(zip(columns, cells, strict=True)))


def _csv_records(stream: Iterable[bytes], name: str) -> Iterator[tuple[str, list[str] | str]]:
    """Where each record starts, and its cells, or what is wrong with it. Blank lines are no records."""
    csv.field_size_limit(2**31 - 1)  # 128 KiB otherwise; long texts are no fault
    # Strict, or a quote that is never closed would swallow the lines after it in silence.
    reader = csv.reader(_csv_lines(stream), strict=True)
    while True:
        place = f"{name}:{reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield place, f"not valid CSV up to line {reader.line_num}: {error}"
            continue
        if cells is None:
            return
        if any(_UNDECODABLE.search(cell) for cell in cells):
            yield place, "not UTF-8 text"
        elif cells:
            yield place, cells


def _csv_lines(stream: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(stream):
        text = line if number else line.removeprefix(_BYTE_ORDER_MARK)
        yield text.decode("utf-8", "surrogateescape")


def _parquet_rows(stream: Any, name: str) -> Rows:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        for batch in ParquetFile(stream).iter_batches(batch_size=1024):
            for at in range(len(batch)):
                number += 1
                yield _arrow_row(f"{name}#{number}", batch.slice(at, 1))
    except (ArrowException, OSError) as error:
        detail = f"damaged parquet file, nothing is read from here on: {error}"
        yield DroppedPair(f"{name}#{number + 1}", UNREADABLE, detail)


def _arrow_row(place: str, record: Any) -> Row | DroppedPair:
    try:
        return Row(place, record.to_pylist()[0])
    except UnicodeDecodeError as error:
        return DroppedPair(place, UNREADABLE, f"not UTF-8 text: {error}")


_READERS: dict[str, Callable[[Any, str], Rows]] = {
    ".json": _json_rows,
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
