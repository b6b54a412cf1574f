"""A judge that is people: what they said of answers, in a file of JSON lines."""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tiltlm.config.judge_words import JudgeWord
from tiltlm.data.files.json_items import DECODER, JSON_ERRORS
from tiltlm.data.files.raw_rows import kind_of
from tiltlm.errors import DataError

TIE = "tie"
_KEYS = ("id", "rewards", "first", "second", "winner", "by")
_LISTED = 3
_LARGEST = sys.float_info.max


@dataclass(frozen=True, slots=True)
class Preference:
    """What people said of two answers of a row. wins: of the first, averaged over them: a tie is a half."""

    first: int
    second: int
    wins: float
    people: int


class Labels:
    """`labels:FILE.jsonl`: each line names a row by its id, and says what one person thought of its answers.

    `rewards`: one number for each answer, or null. Or `first`, `second` and `winner`: two places from 0 on, and the
    place of the better one, or "tie". `by` may say who. What several said of the same is averaged.
    """

    def __init__(self, word: JudgeWord) -> None:
        """Reads the file.

        Raises:
            DataError: it cannot be read, or a line is not understood; names it.
        """
        self.name = word.word
        self._path = Path(word.target).expanduser()
        try:
            content = self._path.read_bytes()
        except OSError as error:
            raise DataError(f"the labels {self._path} cannot be read: {error.strerror or error}.") from error
        self._digest = hashlib.sha256(content).hexdigest()
        self._rewards: dict[str, list[Sequence[float | None]]] = defaultdict(list)
        self._winners: dict[str, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
        self.lines = 0
        for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
            if line.strip():
                self._read(line, f"{self._path}, line {number}")
                self.lines += 1
        if not self.lines:
            raise DataError(f"{self._path} holds no labels.")

    @property
    def ids(self) -> frozenset[str]:
        """The rows that something is said of."""
        return frozenset(self._rewards) | frozenset(self._winners)

    def facts(self) -> dict[str, object]:
        """SHA-256 of the file: other labels are another judge."""
        return {"source": self._digest}

    def rewards(self, id: str, answers: int) -> list[float | None] | None:
        """The mean number of each of so many answers of a row, None for one that nobody gave any; None where no line
        has numbers for it.

        Raises:
            DataError: a line has another number of them.
        """
        said = self._rewards.get(id)
        if said is None:
            return None
        if other := next((one for one in said if len(one) != answers), None):
            raise DataError(
                f"{self._path}: the id `{id}` has {len(other)} rewards in a line, and {answers} answers in the file."
            )
        given = [[one[place] for one in said] for place in range(answers)]
        found = [[value for value in values if value is not None] for values in given]
        return [fmean(values) if values else None for values in found]

    def preferences(self, id: str, answers: int) -> list[Preference]:
        """What was said of pairs among so many answers of a row.

        Raises:
            DataError: a line names an answer that is not there.
        """
        found = []
        for (first, second), wins in self._winners.get(id, {}).items():
            if max(first, second) >= answers:
                raise DataError(
                    f"{self._path}: the id `{id}` has answers 0 to {answers - 1} in the file, and a line compares "
                    f"{first} and {second}."
                )
            found.append(Preference(first, second, fmean(wins), len(wins)))
        return found

    def remarks(self, ids: Sequence[str]) -> list[str]:
        """Which of the rows have no labels, and which labels belong to no row."""
        known = self.ids
        missing, unknown = [id for id in ids if id not in known], sorted(known - set(ids))
        said = []
        if missing:
            said.append(f"{len(missing)} of {len(ids)} rows have no labels: {_listed(missing)}.")
        if unknown:
            said.append(f"{len(unknown)} ids in {self._path} are of no row: {_listed(unknown)}.")
        return said

    def _read(self, line: bytes, place: str) -> None:
        try:
            row = DECODER.decode(line.decode("utf-8"))
        except JSON_ERRORS as error:
            raise DataError(f"{place}: not valid JSON in UTF-8: {error}.") from error
        if not isinstance(row, dict):
            raise DataError(f"{place}: {kind_of(row)}, and a line should be an object with `id` and what was said.")
        if other := next((key for key in row if key not in _KEYS), None):
            raise DataError(f"{place}: `{other}` is not known. It takes {', '.join(_KEYS)}.")
        id = row.get("id")
        if not isinstance(id, str) or not id.strip():
            raise DataError(f"{place}: `id` is {kind_of(id)}, and should be the text that names a row.")
        if ("rewards" in row) == ("winner" in row):
            raise DataError(f"{place}: a line has either `rewards`, or `first`, `second` and `winner`.")
        if "rewards" in row:
            if "first" in row or "second" in row:
                raise DataError(f"{place}: `first` and `second` have no meaning beside `rewards`.")
            self._rewards[id].append(_numbers(row["rewards"], place))
            return
        self._preferred(id, row, place)

    def _preferred(self, id: str, row: Mapping[str, object], place: str) -> None:
        first, second, winner = (row.get(key) for key in ("first", "second", "winner"))
        for key, value in (("first", first), ("second", second)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise DataError(f"{place}: `{key}` should be the place of an answer, 0 for the first.")
        assert isinstance(first, int) and isinstance(second, int)
        if first == second:
            raise DataError(f"{place}: `first` and `second` are the same answer.")
        if isinstance(winner, bool) or winner not in (first, second, TIE):
            raise DataError(f'{place}: `winner` is {first}, {second} or "{TIE}", not {winner!r}.')
        wins = 0.5 if winner == TIE else float(winner == first)
        low, high = min(first, second), max(first, second)
        self._winners[id][low, high].append(wins if first == low else 1.0 - wins)


def _numbers(value: object, place: str) -> list[float | None]:
    if not isinstance(value, list) or not value:
        raise DataError(f"{place}: `rewards` is {kind_of(value)}, and should be a list with a number for each answer.")
    for item in value:
        number = isinstance(item, int | float) and not isinstance(item, bool) and abs(item) <= _LARGEST
        if item is not None and not number:
            raise DataError(f"{place}: `rewards` holds {item!r:.40}, and should hold finite numbers or null.")
    return [None if item is None else float(item) for item in value]


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
    return f"{', '.join(ids[:_LISTED])}{more}"
