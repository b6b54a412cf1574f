"""Rows of Arrow's files: parquet, and IPC (.arrow, .feather)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tiltlm.data.files.raw_rows import UNREADABLE, Row, Rows, without_nulls
from tiltlm.errors import DataError
from tiltlm.runs.data_account import DroppedRow


def parquet_rows(stream: Any, name: str) -> Rows:
    """The rows of a parquet file, named by their number (`pairs.parquet#4`)."""
    return _rows(stream, name, _parquet_batches, "parquet")


def ipc_rows(stream: Any, name: str) -> Rows:
    """The rows of an Arrow file or stream, as Feather files are, named by their number."""
    return _rows(stream, name, _ipc_batches, "Arrow")


def _parquet_batches(stream: Any) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile

    file = ParquetFile(stream)
    _require_different(file.schema_arrow.names)
    yield from file.iter_batches(batch_size=1024)


def _ipc_batches(stream: Any) -> Iterator[Any]:
    from pyarrow import ipc

    if stream.peek(8).startswith(b"FEA1"):
        raise DataError("this is Feather's first version, which is not read: save it as version 2 or parquet.")
    if stream.peek(8).startswith(b"ARROW1"):
        reader = ipc.open_file(stream)
        _require_different(reader.schema.names)
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        stream_reader = ipc.open_stream(stream)
        _require_different(stream_reader.schema.names)
        yield from stream_reader


def _require_different(columns: Sequence[str]) -> None:
    """Of two columns of one name only one would reach a row."""
    if len(set(columns)) < len(columns):
        raise DataError(f"a column name appears twice: {', '.join(columns)}.")


def _rows(stream: Any, name: str, batches: Callable[[Any], Iterator[Any]], kind: str) -> Rows:
    from pyarrow import ArrowException

    number = 0
    try:
        for batch in batches(stream):
            for at in range(len(batch)):
                number += 1
                yield _row(f"{name}#{number}", batch.slice(at, 1))
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except MemoryError:
        raise  # Arrow's own is of both kinds, and nothing is wrong with the file
    except (ArrowException, OSError) as error:
        detail = f"damaged {kind} file, nothing is read from here on: {error}"
        yield DroppedRow(f"{name}#{number + 1}", UNREADABLE, detail)


def _row(place: str, record: Any) -> Row | DroppedRow:
    try:
        fields = record.to_pylist()[0]
    except UnicodeDecodeError as error:
        return DroppedRow(place, UNREADABLE, f"not UTF-8 text: {error}")
    return Row(place, {column: without_nulls(value) for column, value in fields.items()})
