"""Signs that a text was read or written in a wrong encoding, or holds what no text should."""

from __future__ import annotations

import re
from collections.abc import Callable

from tiltlm.data.examples import Example
from tiltlm.data.quality.findings import LISTED_ROWS, MANY, excerpt, finding, of_all, verb
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


class Damage:
    """Looks for such signs, one example after another."""

    def __init__(self) -> None:
        self._mojibake = _mojibake_finder()
        self._counts = dict.fromkeys((MOJIBAKE, *_CHARACTERS), 0)
        self._rows: list[FoundRow] = []
        self._examples = self._damaged = self._with_sign = 0

    def see(self, example: Example) -> None:
        """Takes in an example."""
        self._examples += 1
        signs: dict[str, str] = {}
        for part, text in named_texts(example):
            if text.isascii() and not _ANY.search(text):
                continue
            for sign, where in _signs(text, self._mojibake).items():
                signs.setdefault(sign, f"{part}: {where}")
        for sign, where in signs.items():
            self._counts[sign] += 1
            if len(self._rows) < LISTED_ROWS:
                self._rows.append(FoundRow((example.id,), f"{sign} in {where}"))
        self._with_sign += bool(signs)
        self._damaged += bool(signs.keys() - _HARMLESS)

    def found(self, noun: str) -> tuple[dict[str, int], list[DataFinding]]:
        """In how many examples each sign is, and the finding."""
        many, of = self._with_sign, self._examples
        found = {sign: count for sign, count in self._counts.items() if count}
        listed = ", ".join(f"{sign} in {count:,}" for sign, count in found.items())
        return found, [
            finding(
                "encoding damage",
                many,
                of,
                f"{of_all(many, of, noun)} {verb(many, 'shows', 'show')} signs of it"
                + (f": {listed}." if found else "."),
                self._rows,
                advice="It is learnt as it stands. Read the file in its right encoding, or repair the texts "
                "(ftfy.fix_text, html.unescape).",
                look=self._damaged > 0 and self._damaged >= MANY * of,
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
