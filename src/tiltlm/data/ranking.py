"""From a ranked list of completions to pairs of a better and a worse one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Literal

from tiltlm.data.fields import RowError, decoded, field
from tiltlm.data.reading import UNREADABLE, kind_of

RankedPairs = Literal["all", "best-worst"]
LIST_COLUMNS = ("completions", "responses", "answers")

# What orders the completions, and the sign that makes higher better: as a column, or as a key of every completion.
_ORDER_COLUMNS = {"scores": 1, "rewards": 1, "ranks": -1}
_ORDER_KEYS = {"score": 1, "reward": 1, "rank": -1}
_TEXT_KEYS = ("text", "response", "completion", "content", "answer")


def list_column(fields: Mapping[str, object]) -> str | None:
    """The column that holds the list of completions; None if there is none."""
    return next((column for column in LIST_COLUMNS if isinstance(decoded(fields.get(column)), list)), None)


def ranked_texts(fields: Mapping[str, object]) -> tuple[list[str], list[float]]:
    """The completions of a row, and how good each is: higher is better, only the order matters.

    Raises:
        RowError: a completion is no text, its score is no number, or all are equally good.
    """
    column = list_column(fields)
    items = decoded(fields[column]) if column else None
    if not isinstance(items, list):
        raise RowError(UNREADABLE, f"there is no list of completions in {' or '.join(LIST_COLUMNS)}")
    texts = [_completion_text(item, f"`{column}`, item {number}") for number, item in enumerate(items, start=1)]
    merits = _merits(fields, items)
    if len(set(merits)) < 2:
        raise RowError("no ranking", f"{len(texts)} completions, none better than another")
    return texts, merits


def all_pairs(merits: Sequence[float]) -> list[tuple[int, int]]:
    """Each (better, worse) of different merit."""
    pairs = [(i, j) if merits[i] > merits[j] else (j, i) for i, j in combinations(range(len(merits)), 2)]
    return [(better, worse) for better, worse in pairs if merits[better] > merits[worse]]


def best_and_worst(merits: Sequence[float]) -> list[tuple[int, int]]:
    """The best against the worst; the first listed of several equals."""
    numbers = range(len(merits))
    return [(max(numbers, key=merits.__getitem__), min(numbers, key=merits.__getitem__))]


RANKED_PAIRS: dict[RankedPairs, Callable[[Sequence[float]], list[tuple[int, int]]]] = {
    "all": all_pairs,
    "best-worst": best_and_worst,
}


def _completion_text(item: object, where: str) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, dict):
        for key in _TEXT_KEYS:
            if isinstance(item.get(key), str):
                return str(item[key])
    raise RowError(UNREADABLE, f"{where} is {kind_of(item)}, not text or an object with {' or '.join(_TEXT_KEYS)}")


def _merits(fields: Mapping[str, object], items: list[object]) -> list[float]:
    for column, sign in _ORDER_COLUMNS.items():
        if column in fields:
            values = decoded(field(fields, column))
            if not isinstance(values, list) or len(values) != len(items):
                raise RowError(UNREADABLE, f"`{column}` is no list of {len(items)} numbers, one per completion")
            return [sign * _number(value, f"`{column}`") for value in values]
    for key, sign in _ORDER_KEYS.items():
        values = [item[key] for item in items if isinstance(item, dict) and key in item]
        if values and len(values) < len(items):
            raise RowError(UNREADABLE, f"only {len(values)} of {len(items)} completions have a `{key}`")
        if values:
            return [sign * _number(value, f"`{key}`") for value in values]
    return [float(-place) for place in range(len(items))]


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError(UNREADABLE, f"{where} holds {kind_of(value)} where a number is expected")
    if isinstance(value, float) and not math.isfinite(value):
        raise RowError(UNREADABLE, f"{where} holds {value}, which orders nothing")
    return value
