"""Ratings of both answers beside them: whether they agree that the chosen one is better."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tiltlm.data.formats.fields import Fields, RowError, is_empty
from tiltlm.data.formats.notation import decoded, unwrapped
from tiltlm.data.formats.ranking import SIGNS, canonical, list_column, number, orders

# Words by which a rating says whose it is.
_SIDES = (
    ("chosen", "rejected"),
    ("preferred", "dispreferred"),
    ("accepted", "rejected"),
    ("winner", "loser"),
    ("better", "worse"),
)
_BELOW = "the chosen answer is rated below the rejected one by `{}`. They are kept."
_WORDS = frozenset(word for sides in _SIDES for word in sides)


MARGIN = "margin"
"""By how much the chosen answer is better, in a column of its own."""
Scored = tuple[float, float]


def margin_beside(fields: Fields) -> Scored | None:
    """Scores whose difference is what a column says of by how much the chosen answer is better; None without one."""
    name = next((column for column in fields if _plain(column) == MARGIN), None)
    if name is None or is_empty(fields.look(name)):
        return None
    try:
        return number(fields[name], f"`{name}`"), 0.0
    except RowError:
        return None


def compare_ratings(fields: Fields) -> Scored | None:
    """Remarks on a row whose chosen answer is rated below its rejected one, and counts its ratings as used.

    Ratings are columns such as `chosen_score`, `rejected-rating` or `score_chosen`, keys of an object beside, or a list
    of them beside a list that holds both answers.

    Returns:
        Those of the chosen and of the rejected answer of which higher is better; of several the first by name in SIGNS.
    """
    found = dict(_compared_listed(fields))
    ratings = {(column, place): value for column, place, value in _ratings(fields)}
    for (column, place), value in ratings.items():
        words = place.split("_")
        for better, worse in _SIDES:
            other = "_".join(worse if word == better else word for word in words)
            theirs = next(((c, value) for (c, p), value in ratings.items() if p == other != place), None)
            sign = SIGNS.get(canonical("_".join(word for word in words if word != better)))
            if theirs is None or sign is None:
                continue
            _count_as_used(fields, (column, theirs[0]))
            found.setdefault(canonical("_".join(word for word in words if word != better)), (value, theirs[1]))
            if sign * value < sign * theirs[1]:
                fields.remarks.append(_BELOW.format(column))
    return next((found[name] for name, sign in SIGNS.items() if name in found and sign > 0), None)


def _compared_listed(fields: Fields) -> Iterator[tuple[str, Scored]]:
    column = list_column(fields)
    items = decoded(fields.look(column)) if column else None
    sides = [_words(fields.look(side)) for side in ("chosen", "rejected")]
    if column is None or not isinstance(items, list) or not all(side and side in items for side in sides):
        return
    for name in orders(fields):
        values = decoded(fields.look(name))
        # A `ranking` may be the answers' numbers, best first, as well as the rank of each.
        known = canonical(name) in SIGNS and canonical(name) != "ranking"
        if not known or not isinstance(values, list) or len(values) != len(items):
            continue
        try:
            chosen, rejected = (SIGNS[canonical(name)] * number(values[items.index(side)], name) for side in sides)
        except RowError:
            continue
        fields.used.update((column, name))
        if chosen < rejected:
            fields.remarks.append(_BELOW.format(name))
        yield canonical(name), (chosen, rejected)


def _words(answer: object) -> str | None:
    """What an answer says: its text, or that of its last message."""
    answer = unwrapped(answer)
    last = answer[-1] if isinstance(answer, list) and answer else answer
    said = last.get("content", last.get("value")) if isinstance(last, dict) else last
    return said if isinstance(said, str) else None


def _count_as_used(fields: Fields, names: tuple[str, str]) -> None:
    fields.used.update(names)
    column = names[0].partition(".")[0]
    inner = decoded(fields.look(column))
    if isinstance(inner, dict) and {f"{column}.{key}" for key in inner} == set(names):
        fields.used.add(column)  # it holds nothing else


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _ratings(fields: Fields) -> Iterator[tuple[str, str, float]]:
    """The numbers beside the answers: their column or path, their name in small letters, and their value."""
    for column in fields:
        value = decoded(fields.look(column)) if column not in _WORDS else None
        inner: Mapping[object, object] = value if isinstance(value, dict) else {}
        named = {column: value} | {f"{column}.{key}": item for key, item in inner.items()}
        for name, item in named.items():
            place = _plain(name.rsplit(".", 1)[-1])
            # Within `scores` a key may be the side alone.
            place = _plain(name) if place in _WORDS else place
            if _WORDS & set(place.split("_")):
                try:
                    yield name, place, number(item, name)
                except RowError:
                    continue
