"""JSON back into the types it was written from."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tiltlm.runs.decoding import MalformedError, decode


@dataclass(frozen=True)
class Point:
    x: float
    names: list[str]


@dataclass(frozen=True)
class Curve:
    points: list[Point]
    range: tuple[int, int]


def test_lists_hold_records_and_records_hold_lists() -> None:
    found = decode(Curve, {"points": [{"x": 1, "names": ["a", "b"]}, {"x": 0.5, "names": []}], "range": [0, 3]})
    assert found == Curve([Point(1.0, ["a", "b"]), Point(0.5, [])], (0, 3))


def test_what_is_wrong_within_a_list_is_named() -> None:
    with pytest.raises(MalformedError, match=r"`points\[1\]\.names\[0\]` should be a string, and is 7"):
        decode(Curve, {"points": [{"x": 1, "names": []}, {"x": 2, "names": [7]}], "range": [0, 3]})
    with pytest.raises(MalformedError, match=r"`points` should be a list, and is 'many'"):
        decode(Curve, {"points": "many", "range": [0, 3]})
