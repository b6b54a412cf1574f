"""How a finding is put together, and from which share on it should be looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from tiltlm.runs.data_account import DataFinding, FoundRow

LISTED_ROWS = 10_000
"""Rows of a finding that the report holds; its count is of all."""

MANY = 0.01
"""Share of examples from which on a finding should be looked at."""


def finding(
    topic: str,
    count: int,
    of: int,
    sentence: str,
    rows: Iterable[FoundRow] = (),
    *,
    advice: str | None = None,
    look: bool | None = None,
) -> DataFinding:
    """A finding with the first of its rows; it should be looked at where it is true of `MANY`, unless `look` says."""
    wanted = count >= MANY * of and count > 0 if look is None else look
    return DataFinding(
        topic=topic,
        look=wanted,
        sentence=sentence,
        advice=advice if count else None,
        count=count,
        of=of,
        rows=tuple(islice(rows, LISTED_ROWS)),
    )


def of_all(count: int, of: int, noun: str) -> str:
    """`3 of 1,200 pairs (0.3%)`."""
    share = f" ({share_of(count, of)})" if of else ""
    return f"{count:,} of {counted(of, noun)}{share}"


def counted(amount: int, noun: str) -> str:
    """`1 pair`, `1,200 pairs`."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"


def verb(amount: int, one: str, several: str) -> str:
    """The form of a verb that goes with so many."""
    return one if amount == 1 else several


def share_of(count: float, of: float) -> str:
    """A share in percent, with a decimal below 10%; what is there is never 0%, and what is missing never none."""
    share = 100 * count / of
    if 0 < share < 0.1:
        return "under 0.1%"
    text = f"{share:.1f}" if share < 10 or share > 99 else f"{share:.0f}"
    if text == "100.0" and count < of:
        return "over 99.9%"
    return text.removesuffix(".0") + "%"


def excerpt(text: str, start: int, end: int, around: int = 16) -> str:
    """What stands at a place of a text, with a little before and after it."""
    before, after = max(0, start - around), min(len(text), end + around)
    return f"{'...' if before else ''}{text[before:after]}{'...' if after < len(text) else ''}"


Names = Callable[[int], str]
"""From an example's number to its id."""
