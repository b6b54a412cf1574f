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

        return Names(pyarrow.array([encoded_name(name) for name in names], type=pyarrow.large_binary()))

    def take(self, numbers: np.ndarray) -> Names:
        """The names with these numbers, in the given order."""
        import pyarrow

        return Names(self.array.take(pyarrow.array(numbers)))

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


def encoded_name(name: str) -> bytes:
    """A name as it is kept."""
    return name.encode("utf-8", "surrogatepass")
