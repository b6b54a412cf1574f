"""Which two answers of a prompt make a pair: a pure function of a judged line and of settings."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

from tiltlm.answers.answer_rows import AnswerRow, SampledAnswer
from tiltlm.config.judge_words import LABELS
from tiltlm.errors import ConfigError

Choose = Literal["all", "best-worst", "gap"]
ONE_ANSWER, FAILED, EMPTY = "one answer", "judge failed", "empty answer"
IDENTICAL, EQUAL, NEAR, UNLIKE = (
    "identical texts",
    "equal rewards",
    "rewards nearer than the least gap",
    "unlike lengths",
)
UNCOMPARED, TIED = "nobody compared the two", "a tie of the two"
REPEATED, BEYOND = "repeats a pair of the same texts", "beyond the most pairs of a prompt"
_ROUNDING = 1e-9
# The nearer to a pair the later: a prompt without one has the last of its reasons.
_ORDER = (IDENTICAL, UNCOMPARED, TIED, EQUAL, NEAR, UNLIKE)


@dataclass(frozen=True, slots=True)
class Choosing:
    """How pairs are chosen.

    choose: `all`, every two answers, which are independent draws as theory.pdf, Proposition 13 (on-policy) asks;
        `best-worst`, of each prompt the two furthest apart; `gap`, the `most_pairs` furthest apart, or all that
        `least_gap` leaves.
    least_gap: rewards nearer than this make no pair. Equal ones never do.
    most_pairs: of a prompt; None: no limit.
    longest_ratio: the longer answer may be so many times as long as the shorter one; None: any length.
    """

    choose: Choose = "all"
    least_gap: float = 0.0
    most_pairs: int | None = None
    longest_ratio: float | None = None

    def __post_init__(self) -> None:
        """Raises a ConfigError for what cannot be, or does nothing."""
        if not 0 <= self.least_gap < float("inf"):
            raise ConfigError(f"--least-gap must not be below 0, and is {self.least_gap:g}.")
        if self.most_pairs is not None and self.most_pairs < 1:
            raise ConfigError(f"--most-pairs must be at least 1, not {self.most_pairs}.")
        if self.longest_ratio is not None and not self.longest_ratio >= 1:
            raise ConfigError(f"--longest-ratio must be at least 1, not {self.longest_ratio:g}.")
        if self.choose == "best-worst" and self.most_pairs is not None:
            raise ConfigError(
                "--most-pairs has no effect with --choose best-worst, which takes one pair: leave it out."
            )
        if self.choose == "gap" and self.most_pairs is None and self.least_gap == 0:
            raise ConfigError(
                "--choose gap without --most-pairs and --least-gap is the same as `all`: say one of them."
            )


@dataclass(frozen=True, slots=True)
class ChosenPair:
    """Two answers of a line, by their places: the better and the worse one, and how far apart their rewards are.

    gap: 0 or less where the two were compared, and their rewards, which rest on other comparisons too, say otherwise.
    """

    better: int
    worse: int
    gap: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What a line gives. pairs: in the order of their answers. why: where there is none, the reason; else None.

    answers: how many are left out, by reason. left_out: how many of the two-answer combinations of the rest are, by
    reason.
    """

    pairs: tuple[ChosenPair, ...]
    why: str | None
    answers: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def choose_pairs(row: AnswerRow, choosing: Choosing) -> Choice:
    """The pairs of one line, all of whose answers were judged.

    Where the two were compared themselves, that says which is better; else their rewards do. Of people's winners no
    other pairs are made: a mean over other opponents is nobody's word on these two.
    """
    usable, lost = usable_answers(row)
    if len(usable) < 2:
        return Choice((), too_few(lost), lost)
    left_out: Counter[str] = Counter()
    fitting: list[ChosenPair] = []
    verdicts = _verdicts(row)
    for (i, first, high), (j, second, low) in combinations(usable, 2):
        better = verdicts.get((i, j), float(high > low))
        gap = high - low if better > 0.5 else low - high
        why = _why_not(first, second, gap, choosing, verdicts.get((i, j)), _by_people(row))
        if why is None:
            fitting.append(ChosenPair(*((i, j) if better > 0.5 else (j, i)), gap))
        else:
            left_out[why] += 1
    if not fitting:
        return Choice((), max(left_out, key=_ORDER.index), lost, left_out)
    kept = _kept(row, fitting, choosing, left_out)
    return Choice(tuple(sorted(kept, key=lambda pair: sorted((pair.better, pair.worse)))), None, lost, left_out)


def usable_answers(row: AnswerRow) -> tuple[list[tuple[int, SampledAnswer, float]], Counter[str]]:
    """The answers that something can be learnt from, with their places and rewards, and how many of the others there
    are, by reason."""
    lost = Counter[str]()
    usable: list[tuple[int, SampledAnswer, float]] = []
    for place, answer in enumerate(row.answers):
        if answer.reward is None:
            lost[FAILED] += 1
        elif not answer.text.strip():
            lost[EMPTY] += 1
        else:
            usable.append((place, answer, answer.reward))
    return usable, lost


def too_few(lost: Counter[str]) -> str:
    """Why a prompt has fewer than two usable answers: the reason of most that were lost."""
    return ONE_ANSWER if not lost else max(lost, key=lambda why: (lost[why], why))


def _verdicts(row: AnswerRow) -> dict[tuple[int, int], float]:
    """Of two answers that were compared, the lower place first, the share of wins of the first."""
    found: dict[tuple[int, int], float] = {}
    for one in row.compared or ():
        if one.first < one.second:
            found[one.first, one.second] = one.wins
        else:
            found[one.second, one.first] = 1.0 - one.wins
    return found


def _by_people(row: AnswerRow) -> bool:
    """Whether people said which of two answers is better."""
    return row.compared is not None and row.judge is not None and row.judge.name.startswith(LABELS)


def _why_not(
    first: SampledAnswer, second: SampledAnswer, gap: float, choosing: Choosing, verdict: float | None, by_people: bool
) -> str | None:
    """Why two answers make no pair; None if they do. verdict: of their own comparison, if there was one."""
    if first.text.strip() == second.text.strip():
        return IDENTICAL
    if verdict is None and by_people:
        return UNCOMPARED
    if verdict == 0.5:
        return TIED
    if verdict is None and gap == 0:
        return EQUAL
    # Differences of decimal fractions are theirs but for rounding.
    if choosing.least_gap > 0 and gap < choosing.least_gap * (1 - _ROUNDING):
        return NEAR
    if choosing.longest_ratio is not None:
        if first.tokens and second.tokens:
            lengths = (first.tokens, second.tokens)
        else:
            lengths = (len(first.text.strip()), len(second.text.strip()))
        if max(lengths) > choosing.longest_ratio * min(lengths):
            return UNLIKE
    return None


def _kept(
    row: AnswerRow, fitting: Sequence[ChosenPair], choosing: Choosing, left_out: Counter[str]
) -> Sequence[ChosenPair]:
    """Those of the pairs that are wanted; the others are counted in `left_out`."""
    if choosing.choose == "all":
        kept = list(fitting)
        if choosing.most_pairs is not None and len(kept) > choosing.most_pairs:
            # By a digest, as a choice by rewards or places would prefer some answers.
            kept.sort(key=lambda pair: _drawn(row.id, pair))
            kept = kept[: choosing.most_pairs]
    else:
        widest = sorted(fitting, key=lambda pair: (-pair.gap, pair.better, pair.worse))
        said: set[tuple[str, str]] = set()
        kept = []
        for pair in widest:
            texts = (row.answers[pair.better].text, row.answers[pair.worse].text)
            if texts in said:
                left_out[REPEATED] += 1
            else:
                said.add(texts)
                kept.append(pair)
        most = 1 if choosing.choose == "best-worst" else choosing.most_pairs
        kept = kept if most is None else kept[:most]
    if beyond := len(fitting) - len(kept) - left_out[REPEATED]:
        left_out[BEYOND] = beyond
    return kept


def _drawn(id: str, pair: ChosenPair) -> bytes:
    first, second = sorted((pair.better, pair.worse))
    return hashlib.blake2b(f"{first} {second} {id}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
