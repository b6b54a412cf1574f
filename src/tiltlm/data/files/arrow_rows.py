"""Rows of Arrow's files: parquet, and IPC (.arrow, .feather)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from tiltlm.data.files.raw_rows import UNREADABLE, Row, Rows, without_nulls
from tiltlm.errors import DataError
from tiltlm.runs.data_account import DroppedRow

# What Arrow's values may raise on their way to Python: text that is none, dates that no calendar of Python's has, time
# zones that are not known, numbers too large. Arrow's own exceptions are ValueErrors or such besides.
_NO_VALUE = (ValueError, OverflowError, LookupError, TypeError, NotImplementedError)
# By which a stream says that it is whole: the older form is the end of the newer one.
_END = b"\0\0\0\0"


def parquet_rows(stream: Any, name: str) -> Rows:
    """The rows of a parquet file, named by their number (`pairs.parquet#4`)."""
    return _rows(stream, name, _parquet_batches, "parquet")


def ipc_rows(stream: Any, name: str) -> Rows:
    """The rows of an Arrow file or stream, as Feather files are, named by their number."""
    return _rows(stream, name, _ipc_batches, "Arrow")


def require_sound(batch: Any) -> None:
    """Looks at where the values of a batch or table lie, which a damaged file may say wrongly.

    Arrow follows such places wherever they lead when values are read, out of the file and out of the program's memory.
    Whether texts are UTF-8 is not looked at: that is found out row by row.

    Raises:
        pyarrow.ArrowInvalid: a value does not lie within its file.
    """
    from pyarrow import ArrowException

    for column in batch.columns:
        for piece in getattr(column, "chunks", [column]):
            try:
                seen = piece.view(_as_bytes(piece.type))
            except ArrowException:
                seen = piece  # of a type that cannot be looked at without its texts
            seen.validate(full=True)


def as_row(place: str, fields: Callable[[], Mapping[str, object]]) -> Row | DroppedRow:
    """The row of this name, or why its values cannot be had.

    fields: gives the values by column.
    """
    try:
        found = fields()
    except UnicodeDecodeError as error:
        return DroppedRow(place, UNREADABLE, f"not UTF-8 text: {error}")
    except _NO_VALUE as error:
        return DroppedRow(place, UNREADABLE, f"a value cannot be read: {error or type(error).__name__}")
    return Row(place, {column: without_nulls(value) for column, value in found.items()})


def _fields(batch: Any, at: int) -> dict[str, object]:
    fields: dict[str, object] = batch.slice(at, 1).to_pylist()[0]
    return fields


def _as_bytes(kind: Any) -> Any:
    """The Arrow type with bytes in place of text, also within lists and objects."""
    import pyarrow as pa

    plain = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
    if kind in plain:
        return plain[kind]
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_bytes(field.type)) for field in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        make = pa.list_ if pa.types.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(_as_bytes(kind.value_type)))
    return kind


def _parquet_batches(stream: Any) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile

    file = ParquetFile(stream)
    _require_different(file.schema_arrow.names)
    yield from file.iter_batches(batch_size=1024)


def _ipc_batches(stream: Any) -> Iterator[Any]:
    from pyarrow import ArrowInvalid, ipc

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
        stream.seek(-len(_END), 2)
        if stream.read() != _END:
            raise ArrowInvalid("it ends without the mark of its end, so more may have followed")


def _require_different(columns: Sequence[str]) -> None:
    """Of two columns of one name only one would reach a row."""
    if len(set(columns)) < len(columns):
        raise DataError(f"a column name appears twice: {', '.join(columns)}.")


def _rows(stream: Any, name: str, batches: Callable[[Any], Iterator[Any]], kind: str) -> Rows:
    from pyarrow import ArrowException

    number = 0
    try:
        for batch in batches(stream):
            require_sound(batch)
            for at in range(len(batch)):
                number += 1
                yield as_row(f"{name}#{number}", partial(_fields, batch, at))
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except MemoryError:
        raise  # Arrow's own is of both kinds, and nothing is wrong with the file
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        detail = f"damaged {kind} file, nothing is read from here on: {error or type(error).__name__}"
        yield DroppedRow(f"{name}#{number + 1}", UNREADABLE, detail)
