"""Signs that a text was read or written in a wrong encoding, or holds what no text should."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tiltlm.data.examples import Example
from tiltlm.data.quality.findings import LISTED_ROWS, MANY, Names, excerpt, finding, of_all, verb
from tiltlm.data.quality.parts import named_texts
from tiltlm.runs.data_account import DataFinding, FoundRow

MOJIBAKE = "mojibake"
"""UTF-8 that was read as another encoding: `donâ€™t`. Told by the heuristic of `ftfy`, if it has a repair."""

_CHARACTERS = {
    "replacement characters": re.compile("\ufffd"),
    "NUL": re.compile("\0"),
    # Not tab, line feed, form feed and carriage return, which texts have.
    "control characters": re.compile("[\x01-\x08\x0b\x0e-\x1f\x7f-\x9f]"),
    "HTML entities": re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{1,6}|#x[0-9a-fA-F]{1,5});"),
}
_ANY = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd&]")
# Bytes of UTF-8 beyond ASCII never stand alone, so what they were misread as does not either: but for a last one that
# became a space, and for controls. Most texts have single curly quotes at most, and need no closer look.
_MISREAD = re.compile("[^\x00-\x7f]{2}|[\x80-\x9f]|[\xc2\xc3] ")
# HTML entities are at home in answers about code.
_HARMLESS = frozenset({"HTML entities"})


def damage(examples: Sequence[Example], name: Names, noun: str) -> tuple[dict[str, int], list[DataFinding]]:
    """In how many examples each sign is, and the finding."""
    mojibake = _mojibake_finder()
    counts = dict.fromkeys((MOJIBAKE, *_CHARACTERS), 0)
    rows: list[FoundRow] = []
    damaged = with_sign = 0
    for number, example in enumerate(examples):
        signs: dict[str, str] = {}
        for part, text in named_texts(example):
            if text.isascii() and not _ANY.search(text):
                continue
            for sign, where in _signs(text, mojibake).items():
                signs.setdefault(sign, f"{part}: {where}")
        for sign, where in signs.items():
            counts[sign] += 1
            if len(rows) < LISTED_ROWS:
                rows.append(FoundRow((name(number),), f"{sign} in {where}"))
        with_sign += bool(signs)
        damaged += bool(signs.keys() - _HARMLESS)
    found = {sign: count for sign, count in counts.items() if count}
    listed = ", ".join(f"{sign} in {count:,}" for sign, count in found.items())
    return found, [
        finding(
            "encoding damage",
            with_sign,
            len(examples),
            f"{of_all(with_sign, len(examples), noun)} {verb(with_sign, 'shows', 'show')} signs of it"
            + (f": {listed}." if found else "."),
            rows,
            advice="It is learnt as it stands. Read the file in its right encoding, or repair the texts "
            "(ftfy.fix_text, html.unescape).",
            look=damaged > 0 and damaged >= MANY * len(examples),
        )
    ]


def _signs(text: str, mojibake: Callable[[str], str | None]) -> dict[str, str]:
    """Every sign in a text, with the place where it is first."""
    signs = {sign: excerpt(text, *match.span()) for sign, look in _CHARACTERS.items() if (match := look.search(text))}
    if not text.isascii() and (where := mojibake(text)) is not None:
        signs[MOJIBAKE] = where
    return signs


def _mojibake_finder() -> Callable[[str], str | None]:
    """Where a text was read in a wrong encoding, and what it was; None where it was not."""
    # Takes a moment to import, which no run should spend that looks at no data.
    import ftfy
    from ftfy.badness import is_bad

    def find(text: str) -> str | None:
        if not _MISREAD.search(text) or not is_bad(text):
            return None
        repaired = ftfy.fix_encoding(text)
        if repaired == text:
            return None
        start = next((at for at, (was, now) in enumerate(zip(text, repaired, strict=False)) if was != now), 0)
        return f"{excerpt(text, start, start + 1)} (was it {excerpt(repaired, start, start + 1)}?)"

    return find
