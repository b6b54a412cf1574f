"""From one file to its rows, one at a time. What cannot be read is said, row by row, and never ends the reading.

A row is named by its file and, in text files, the line it starts on (`pairs.jsonl:17`); in a list of JSON and in
tables of Arrow by its number, counted from 1 (`pairs.json#4`).
"""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from tiltlm.data.files.arrow_rows import ipc_rows, parquet_rows
from tiltlm.data.files.csv_rows import csv_rows
from tiltlm.data.files.encodings import DAMAGES, TextFile, look_at
from tiltlm.data.files.json_rows import holds_json, json_lines_rows, json_rows, sniffed_rows
from tiltlm.data.files.raw_rows import UNREADABLE, Row, Rows, Tell
from tiltlm.errors import DataError
from tiltlm.runs.data_account import DroppedRow

ReadText = Callable[[Any, TextFile, Tell], Rows]

_TEXT_KINDS: dict[str, ReadText] = {
    ".json": lambda stream, text, tell: json_rows(stream, text),
    ".jsonl": lambda stream, text, tell: json_lines_rows(stream, text),
    ".ndjson": lambda stream, text, tell: json_lines_rows(stream, text),
    ".txt": lambda stream, text, tell: sniffed_rows(stream, text),
    ".csv": csv_rows,
    ".tsv": csv_rows,
}
_TABLE_KINDS: dict[str, Callable[[Any, str], Rows]] = {
    ".parquet": parquet_rows,
    ".arrow": ipc_rows,
    ".feather": ipc_rows,
}
# What Git keeps in place of a large file.
_POINTER = b"version https://git-lfs"
MOST_UNREADABLE = 1_000_000
"""Rows of one file that may be unreadable."""
# Files of any kind may be called so.
_UNTOLD = ".txt"


def _open_zstd(stream: Any) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), "zstd")


_COMPRESSIONS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    ".gz": ("gzip", lambda stream: gzip.GzipFile(fileobj=stream)),
    ".bz2": ("bzip2", bz2.BZ2File),
    ".xz": ("xz", lzma.LZMAFile),
    ".zst": ("zstd", _open_zstd),
}


def read_rows(path: Path, name: str | None = None, tell: Tell = lambda note: None) -> Rows:
    """The rows of a data file, streamed; each unreadable one as a DroppedRow in its place.

    path: a file of one of the kinds that `known_kinds` lists.
    name: what the rows' ids call the file; by default its name.
    tell: is given what a user should know of the file: an encoding or a separator that was recognised.

    Raises:
        DataError: the file cannot be opened, is of an unknown kind, or is laid out in a way that gives no rows.
    """
    suffix = data_suffix(path)
    if suffix is None:
        raise DataError(f"{path}: files of this kind are not read. Known kinds: {known_kinds()}.")
    name = name or path.name
    compression = _COMPRESSIONS.get(path.suffix.lower())
    place = "its beginning"
    try:
        with path.open("rb") as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                raise DataError(f"{path} is not the data but Git LFS's pointer to it: fetch it by `git lfs pull`.")
        if suffix in _TABLE_KINDS:
            with path.open("rb") as stream:
                yield from _TABLE_KINDS[suffix](stream, name)
            return
        with path.open("rb") as stream:
            text = look_at(_plain(stream, compression), name, tell)
        with path.open("rb") as stream, closing(_read_text(suffix, _plain(stream, compression), text, tell)) as rows:
            for row in _not_only_unreadable(rows, name):
                place = row.id
                yield row
    except DAMAGES as error:
        if compression is None or (isinstance(error, OSError) and error.errno):
            raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
        yield DroppedRow(
            name,
            UNREADABLE,
            f"damaged {compression[0]} file, nothing is read after {place}: {error or 'it is cut off'}",
        )


def _not_only_unreadable(rows: Rows, name: str) -> Rows:
    """The rows, unless so many of them are unreadable that to list them would fill the memory.

    Raises:
        DataError: they are.
    """
    unreadable = 0
    for row in rows:
        unreadable += isinstance(row, DroppedRow)
        if unreadable > MOST_UNREADABLE:
            raise DataError(
                f"{name}: more than {MOST_UNREADABLE:,} of its rows cannot be read; at {row.id} reading was given up. "
                "It is damaged, or no data."
            )
        yield row


def _read_text(suffix: str, stream: Any, text: TextFile, tell: Tell) -> Generator[Row | DroppedRow, None, None]:
    """The rows of an open text; once closed it has let go of the stream."""
    yield from _TEXT_KINDS[suffix](stream, text, tell)


def data_suffix(path: Path) -> str | None:
    """The suffix that tells how a file is read, without that of its compression; None if it is no data file."""
    name = Path(path.name.lower())
    if name.suffix not in _COMPRESSIONS:
        return name.suffix if name.suffix in (_TEXT_KINDS | _TABLE_KINDS) else None
    inner = name.with_suffix("").suffix
    return (inner if inner in _TEXT_KINDS else None) if inner else _UNTOLD


def holds_rows(path: Path) -> bool:
    """Whether a file seems to be data, by its name and, where that does not tell, by its beginning."""
    suffix = data_suffix(path)
    if suffix != _UNTOLD:
        return suffix is not None
    try:
        with path.open("rb") as stream:
            text = look_at(_plain(stream, _COMPRESSIONS.get(path.suffix.lower())), path.name, lambda note: None)
    except OSError:
        return False
    return holds_json(text.head)


def known_kinds() -> str:
    return (
        ".json, .jsonl, .ndjson, .csv, .tsv and .txt (with JSON inside), each also with .gz, .bz2, .xz or .zst; "
        ".parquet, .arrow and .feather"
    )


def _plain(stream: Any, compression: tuple[str, Callable[[Any], Any]] | None) -> Any:
    return compression[1](stream) if compression else stream
