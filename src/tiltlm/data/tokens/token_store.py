"""Token columns in a file that is mapped into memory: Arrow's IPC format, uncompressed.

The file holds one record batch of one row, in which every column is a list, as the columns differ in length. Its
buffers lie in the file as they are used, so arrays are views of the map, and nothing is read before it is looked at.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tiltlm.data.tokens.names import Names, as_arrow
from tiltlm.data.tokens.token_columns import TokenColumns

_TYPES: dict[str, type[np.generic]] = {
    "ids": np.int32,
    "bounds": np.int64,
    "first_scored": np.int32,
    "tokens_cut": np.int32,
    "ended": np.int8,
    "labels": np.int8,
    "scores": np.float32,
    "members": np.int64,
    "prompt_tokens_cut": np.int32,
}
_NAMES = "names"
_PIECE = 1 << 24


class DamagedError(Exception):
    """A file does not hold what was written."""


def write_columns(columns: TokenColumns, path: Path) -> None:
    """Writes columns to a new file.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow
    from pyarrow import ipc

    names = columns.names if isinstance(columns.names, Names) else Names.of(columns.names)
    values = {name: as_arrow(getattr(columns, name).astype(kind, copy=False)) for name, kind in _TYPES.items()}
    lists = {name: _as_row(array) for name, array in (values | {_NAMES: _in_one_piece(names)}).items()}
    batch = pyarrow.RecordBatch.from_arrays(list(lists.values()), names=list(lists))
    # More tokens than 2**31 are written, too.
    options = ipc.IpcWriteOptions(allow_64bit=True)
    with ipc.new_file(str(path), batch.schema, options=options) as writer:
        writer.write_batch(batch)


def map_columns(path: Path) -> TokenColumns:
    """The columns of a file, mapped: their arrays cannot be written to.

    Raises:
        DamagedError: the file is not what `write_columns` writes.
        OSError: it cannot be opened.
    """
    import pyarrow
    from pyarrow import ipc

    try:
        batch = ipc.open_file(pyarrow.memory_map(str(path))).get_batch(0)
        lists = {name: batch.column(name) for name in (*_TYPES, _NAMES)}
        arrays = {name: _as_numpy(lists[name].values, kind) for name, kind in _TYPES.items()}
        columns = TokenColumns(names=Names(lists[_NAMES].values), **arrays)
    except (pyarrow.ArrowException, KeyError, ValueError, AttributeError) as error:
        raise DamagedError(f"{path}: {error}") from error
    sequences, examples = len(columns.bounds) - 1, len(columns.members) - 1
    lengths = {
        "ids": columns.bounds[-1] if sequences >= 0 else 0,
        **dict.fromkeys(("first_scored", "tokens_cut", "ended", "labels", "scores"), sequences),
        "prompt_tokens_cut": examples,
        _NAMES: examples,
    }
    if any(len(getattr(columns, name)) != length for name, length in lengths.items()):
        raise DamagedError(f"{path}: its columns do not fit each other")
    return columns


def checksum(path: Path) -> int:
    """CRC-32 of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    crc = 0
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            crc = zlib.crc32(piece, crc)
    return crc


def wrapped(content: bytes) -> bytes:
    """Bytes after a line with their CRC-32."""
    return b"%08x\n%s" % (zlib.crc32(content), content)


def unwrapped(content: bytes) -> bytes:
    """The bytes that `wrapped` was given.

    Raises:
        DamagedError: they have changed.
    """
    crc, _, rest = content.partition(b"\n")
    if crc != b"%08x" % zlib.crc32(rest):
        raise DamagedError("the record has changed")
    return rest


def _as_row(array: Any) -> Any:
    """An array as the one row of a column of lists."""
    import pyarrow

    return pyarrow.LargeListArray.from_arrays(as_arrow(np.array([0, len(array)])), array)


def _as_numpy(array: Any, kind: type[np.generic]) -> np.ndarray:
    """A view of an Arrow array. (Arrow's own way to it would load pandas, where there is one.)

    Raises:
        ValueError: it is of another type.
    """
    dtype = np.dtype(kind)
    if array.type != as_arrow(np.empty(0, dtype)).type:
        raise ValueError(f"{array.type} in place of {dtype.name}")
    buffer = array.buffers()[1]
    if not len(array):
        return np.frombuffer(b"", dtype=dtype)
    return np.frombuffer(buffer, dtype=dtype, count=len(array), offset=array.offset * dtype.itemsize)


def _in_one_piece(names: Names) -> Any:
    import pyarrow

    array = names.array
    return array.combine_chunks() if isinstance(array, pyarrow.ChunkedArray) else array
