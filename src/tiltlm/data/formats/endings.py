"""Whether answers ended, as columns beside them say: one that was cut in the middle has no end to be learnt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tiltlm.data.files.raw_rows import UNREADABLE
from tiltlm.data.formats.fields import Fields, RowError, is_empty, plain
from tiltlm.data.formats.notation import decoded
from tiltlm.data.formats.pairing import Parts
from tiltlm.data.formats.ranking import list_column
from tiltlm.objectives.interface import CHOSEN, REJECTED

SIDES = ("chosen_ended", "rejected_ended")
"""The columns of a pair."""
ENDED = "ended"
"""The column of a single answer; of a list of answers a list, or a key of every answer."""
_KNOWN = {"true": True, "1": True, "false": False, "0": False}


def tell_endings(rows: Iterable[Mapping[str, object]]) -> bool:
    """Whether the column of single answers says in any of these rows whether one ended; True where it is empty in all
    of them. Else it is of something else that has the same name, such as the time when a talk ended."""
    values = [value for row in rows if not is_empty(value := row.get(ENDED))]
    return not values or any(plain(value) in _KNOWN for value in values)


def with_endings(fields: Fields, parts: Sequence[Parts], of_single: bool = True) -> list[Parts]:
    """A row's examples with what its columns say of their ends. What is null says that the answer ended.

    of_single: whether the column of single answers does, see `tell_endings`; else it is left unused.

    Raises:
        RowError: a column says neither yes nor no, or is of a pair where the row gives something else.
    """
    said = [name for name in SIDES if not is_empty(fields.look(name))]
    if said:
        if len(parts) != 1 or parts[0].labels != (CHOSEN, REJECTED):
            raise RowError(
                UNREADABLE,
                f"`{said[0]}` is of a pair, and the row gives something else: write each pair in a row of its own, "
                f"and beside a single answer or a list of answers `{ENDED}`",
            )
        return [replace(parts[0], ended=_as_said(_yes(fields, name) for name in SIDES))]
    if of_single and len(parts) == 1 and len(parts[0].labels) == 1 and not is_empty(fields.look(ENDED)):
        return [replace(parts[0], ended=_as_said([_yes(fields, ENDED)]))]
    return list(parts)


def endings_of_list(fields: Fields, answers: int) -> tuple[bool, ...] | None:
    """Of each answer of a row's list whether it ended; None where all did, or nothing says so.

    Raises:
        RowError: there are not as many as answers, or one says neither yes nor no.
    """
    column = list_column(fields)
    items = decoded(fields.look(column)) if column else None
    if isinstance(items, list) and any(isinstance(item, dict) and item.get(ENDED) is not None for item in items):
        fields.ignored.discard(f"{column}.{ENDED}")
        values = [item.get(ENDED) if isinstance(item, dict) else None for item in items]
        return _as_said(_answer(value, f"`{ENDED}` of `{column}`, item {n}") for n, value in enumerate(values, start=1))
    if is_empty(fields.look(ENDED)):
        return None
    listed = decoded(fields[ENDED])
    if not isinstance(listed, list) or len(listed) != answers:
        raise RowError(UNREADABLE, f"`{ENDED}` is no list of {answers}, one per completion, of true or false")
    return _as_said(_answer(value, f"`{ENDED}`, item {n}") for n, value in enumerate(listed, start=1))


def _as_said(endings: Iterable[bool]) -> tuple[bool, ...] | None:
    found = tuple(endings)
    return None if all(found) else found


def _yes(fields: Fields, column: str) -> bool:
    return _answer(fields.get(column), f"`{column}`")


def _answer(value: object, where: str) -> bool:
    if is_empty(value):
        return True
    known = _KNOWN.get(plain(value))
    if known is None:
        raise RowError(UNREADABLE, f"{where} is {value!r:.40}, and says whether an answer ended: true or false")
    return known
