"""A row as it stands in the data, and how what it holds is called in messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tiltlm.runs.data_account import DroppedRow

UNREADABLE = "unreadable row"


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in the data: its name, and its fields by column."""

    id: str
    fields: Mapping[str, object]


Rows = Iterator[Row | DroppedRow]
# Takes a sentence about a file that a user should know.
Tell = Callable[[str], None]


def kind_of(value: object) -> str:
    """What a JSON value is, in words for a message."""
    if value is None or (isinstance(value, float) and value != value):
        return "null" if value is None else "NaN"
    words: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return words.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def as_row(place: str, value: object) -> Row | DroppedRow:
    """The row of a value, which must be an object."""
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return Row(place, value)
        other = next(key for key in value if not isinstance(key, str))
        return DroppedRow(place, UNREADABLE, f"the name of a column is {kind_of(other)} ({other!r:.40}), not text")
    return DroppedRow(place, UNREADABLE, f"{kind_of(value)}, not an object of columns")


def without_arrays(value: object) -> object:
    """The value with lists, numbers and truths of Python in place of arrays, as frames and formatted datasets hold."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: without_arrays(item) for key, item in value.items()}
    return [without_arrays(item) for item in value] if isinstance(value, list) else value


def without_nulls(value: object) -> object:
    """The value without the keys that are null within its objects.

    In Arrow's tables all objects of a column have the same keys: one that a row did not give is null there.
    """
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
