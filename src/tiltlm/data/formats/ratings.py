"""Ratings of both answers beside them: whether they agree that the chosen one is better."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tiltlm.data.formats.fields import Fields, RowError
from tiltlm.data.formats.notation import decoded
from tiltlm.data.formats.ranking import SIGNS, canonical, number

# Words by which a rating says whose it is.
_SIDES = (
    ("chosen", "rejected"),
    ("preferred", "dispreferred"),
    ("accepted", "rejected"),
    ("winner", "loser"),
    ("better", "worse"),
)
_WORDS = frozenset(word for sides in _SIDES for word in sides)


def compare_ratings(fields: Fields) -> None:
    """Remarks on a row whose chosen answer is rated below its rejected one, and counts its ratings as used.

    Ratings are columns such as `chosen_score`, `rejected-rating` or `score_chosen`, or keys of an object beside.
    """
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
            if sign * value < sign * theirs[1]:
                fields.remarks.append(
                    f"the chosen answer is rated below the rejected one by `{column}`. They are kept."
                )


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
