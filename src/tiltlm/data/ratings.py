"""Ratings of both answers beside them: whether they agree that the chosen one is better."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tiltlm.data.fields import Fields, RowError
from tiltlm.data.notation import decoded
from tiltlm.data.ranking import SIGNS, canonical, number

_SIDES = ("chosen", "rejected")


def compare_ratings(fields: Fields) -> None:
    """Remarks on a row whose chosen answer is rated below its rejected one, and counts its ratings as used.

    Ratings are columns such as `chosen_score`, `rejected-rating` or `score_chosen`, or keys of an object beside.
    """
    ratings = {(column, place): value for column, place, value in _ratings(fields)}
    for (column, place), value in ratings.items():
        words = place.split("_")
        if "chosen" not in words:
            continue
        other = "_".join("rejected" if word == "chosen" else word for word in words)
        theirs = next(((c, value) for (c, p), value in ratings.items() if p == other), None)
        sign = SIGNS.get(canonical("_".join(word for word in words if word != "chosen")))
        if theirs is None or sign is None:
            continue
        fields.used.update((column, theirs[0]))
        if sign * value < sign * theirs[1]:
            fields.remarks.append(f"the chosen answer is rated below the rejected one by `{column}`. They are kept.")


def _ratings(fields: Fields) -> Iterator[tuple[str, str, float]]:
    """The numbers beside the answers: their column or path, their name in small letters, and their value."""
    for column in fields:
        value = decoded(fields.look(column)) if column not in _SIDES else None
        inner: Mapping[object, object] = value if isinstance(value, dict) else {}
        named = {column: value} | {f"{column}.{key}": item for key, item in inner.items()}
        for name, item in named.items():
            place = re.sub(r"[^a-z0-9]+", "_", name.rsplit(".", 1)[-1].lower()).strip("_")
            if set(_SIDES) & set(place.split("_")):
                try:
                    yield name, place, number(item, name)
                except RowError:
                    continue
