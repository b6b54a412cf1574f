"""The names of many examples, without a Python object for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np


class Names(Sequence[str]):
    """Names in an Arrow array, which may be mapped from a file.

    array: of the type `large_binary`. Not text: the name of a file may hold what is no UTF-8.
    """

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array

    @staticmethod
    def of(names: Iterable[str]) -> Names:
        """These names."""
        import pyarrow

        encoded = [encoded_name(name) for name in names]
        bounds = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        buffers = [None, pyarrow.py_buffer(bounds), pyarrow.py_buffer(b"".join(encoded))]
        return Names(pyarrow.Array.from_buffers(pyarrow.large_binary(), len(encoded), buffers))

    @staticmethod
    def joined(parts: Sequence[Sequence[str]]) -> Names:
        """The names of several parts, one after another."""
        import pyarrow

        arrays = [(part if isinstance(part, Names) else Names.of(part)).array for part in parts]
        chunks = [chunk for array in arrays for chunk in getattr(array, "chunks", [array])]
        return Names(pyarrow.concat_arrays(chunks))

    def take(self, numbers: np.ndarray) -> Names:
        """The names with these numbers, in the given order."""
        return Names(self.array.take(as_arrow(numbers)))

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> Names: ...
    def __getitem__(self, number: int | slice) -> str | Names:
        if isinstance(number, slice):
            return Names(self.array[number])
        name: bytes = self.array[number].as_py()
        return name.decode("utf-8", "surrogatepass")


def as_arrow(values: np.ndarray) -> Any:
    """A numpy array as Arrow's, with the same memory. (Arrow's own way to it would load pandas, where there is one.)"""
    import pyarrow

    whole = np.ascontiguousarray(values)
    kind = pyarrow.from_numpy_dtype(whole.dtype)
    return pyarrow.Array.from_buffers(kind, len(whole), [None, pyarrow.py_buffer(whole)])


def encoded_name(name: str) -> bytes:
    """A name as it is kept."""
    return name.encode("utf-8", "surrogatepass")
