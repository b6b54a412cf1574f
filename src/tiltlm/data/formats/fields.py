"""A row's fields, which of them were used, and text out of them, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tiltlm.data.files.raw_rows import UNREADABLE, kind_of
from tiltlm.data.formats.notation import is_broken_messages


class RowError(Exception):
    """A row or an example cannot be used. It becomes a DroppedRow; it never reaches the user as an exception."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Fields(Mapping[str, object]):
    """A row's fields by column. What is read counts as used; what is only looked at does not.

    used: columns whose values went into an example. ignored: keys within used columns that did not.
    remarks: what is odd about the row although it is used.
    """

    __slots__ = ("_fields", "ignored", "remarks", "used")

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = fields
        self.used: set[str] = set()
        self.ignored: set[str] = set()
        self.remarks: list[str] = []

    def __getitem__(self, column: str) -> object:
        value = self._fields[column]
        self.used.add(column)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def look(self, column: str) -> object:
        """The value of a column, or None, without counting as its use."""
        return self._fields.get(column)

    def unused(self) -> list[str]:
        """The columns that hold something and were not used."""
        return [column for column, value in self._fields.items() if column not in self.used and not is_empty(value)]


def look(fields: Mapping[str, object], column: str) -> object:
    """The value of a column, or None, without counting as its use."""
    return fields.look(column) if isinstance(fields, Fields) else fields.get(column)


def is_empty(value: object) -> bool:
    """Whether a value says nothing: null, blank text, or an empty list or object."""
    # By types: of a value in memory, such as pandas' NA, equality may have no truth.
    return (
        value is None
        or (isinstance(value, list | dict) and not value)
        or (isinstance(value, str) and not value.strip())
    )


def field(fields: Mapping[str, object], column: str) -> object:
    """The value of a column, which must be there and not null."""
    value = fields.get(column)
    if value is None:
        raise RowError(UNREADABLE, f"`{column}` is {'null' if column in fields else 'missing'}")
    return value


def text_field(fields: Mapping[str, object], column: str) -> str:
    return as_text(field(fields, column), f"`{column}`")


def as_text(value: object, where: str) -> str:
    """A value that is text, and not a list of messages that a program wrote down in a notation of its own."""
    if not isinstance(value, str):
        raise RowError(UNREADABLE, f"{where} is {kind_of(value)}, not text")
    if is_broken_messages(value):
        raise RowError(
            UNREADABLE,
            f"{where} is the text of a list of messages that is neither JSON nor Python, so its words cannot be told "
            "from its signs. Save the data as JSON lines or parquet",
        )
    return value


def plain(value: object) -> str:
    """A verdict as text in small letters: 1, 1.0, "1" and True are the same."""
    if isinstance(value, str):
        value = value.strip().lower()
        try:
            value = float(value)
        except ValueError:
            return str(value)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return str(int(value)) if isinstance(value, int | float) and whole else str(value)


def require_characters(text: str, where: str) -> None:
    """Raises a RowError for a text with half a surrogate pair, which JSON can write, and no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(UNREADABLE, f"{where} holds half a character: {error.reason}") from error
