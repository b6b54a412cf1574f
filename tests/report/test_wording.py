"""Numbers as people read them."""

from __future__ import annotations

import pytest

from tiltlm.report.wording import count, duration, number, percent, signed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.5, "0.5"),
        (0.0004, "4.0e-04"),
        (-0.1234, "-0.123"),
        (3.206, "3.21"),
        (41.26, "41.3"),
        (100, "100"),
        (1234.5, "1,234"),
        (float("nan"), "nan"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (9.96, "10 s"), (59.7, "1 min 0 s"), (210, "3 min 30 s"), (7500, "2 h 5 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_shares_changes_and_counts() -> None:
    assert [percent(0.7), percent(0.7234), percent(1)] == ["70%", "72.3%", "100%"]
    assert [signed(0.4), signed(-0.4), signed(0)] == ["+0.4", "-0.4", "0"]
    assert [count(1, "pair"), count(1200, "pair")] == ["1 pair", "1,200 pairs"]
