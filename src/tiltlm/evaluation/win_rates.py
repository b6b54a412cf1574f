"""How often the answers of one model beat those of another to the same prompts. Knows no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tiltlm.runs.estimates import Estimate
from tiltlm.statistics import mean_share

MOST_COMPARED = 64
"""Answers of the other model with which one answer is compared where lengths are looked at, too. Of more samples than
these to a prompt each meets as many; further pairs of the same answers add little, and their number grows as a square.
"""


@dataclass(frozen=True, slots=True)
class Scored:
    """The answers of one model to one prompt: their rewards, the higher the better, and lengths, in whatever unit."""

    rewards: Sequence[float]
    lengths: Sequence[float]


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Answers of two models, compared two by two; each array has one entry a comparison.

    wins: 1 where the new answer has the higher reward, 1/2 where both have the same, else 0.
    longer: length of the new answer less that of the old one.
    prompts: the number of the prompt, from 0 on.
    """

    wins: np.ndarray
    longer: np.ndarray
    prompts: np.ndarray


def win_rate(olds: Sequence[Sequence[float]], news: Sequence[Sequence[float]]) -> Estimate:
    """The share of comparisons that the new answers win, ties as halves: P(new > old) + P(new = old) / 2.

    Every new answer to a prompt is compared with every old one to it, which is of all unbiased estimates from these
    samples the one that varies least (U-statistic: H. B. Mann, D. R. Whitney, Ann. Math. Stat. 18 (1947) 50-60). Each
    prompt counts alike, however many answers it has. The 95% interval treats prompts as independent, not the
    comparisons of one prompt: `statistics.mean_share`.

    Args:
        olds, news: of each prompt, the rewards of the answers of the two models, at least one each.

    Raises:
        ValueError: there are no prompts, or one has no answers of one of the models.
    """
    return mean_share([_share(old, new) for old, new in zip(olds, news, strict=True)])


def _share(old: Sequence[float], new: Sequence[float]) -> float:
    """The share of one prompt's comparisons that are won, by ranks: no table of all pairs is made."""
    if not len(old) or not len(new):
        raise ValueError("a prompt without answers of one of the models has no comparisons")
    ordered = np.sort(np.asarray(old, dtype=np.float64))
    below, not_above = (np.searchsorted(ordered, new, side=side).sum() for side in ("left", "right"))
    return float(below + not_above) / (2 * len(old) * len(new))


def comparisons(olds: Sequence[Scored], news: Sequence[Scored]) -> Comparisons:
    """All comparisons of the answers of two models to the same prompts, or `MOST_COMPARED` for each answer.

    Raises:
        ValueError: there are no prompts, or one has no answers of one of the models.
    """
    wins, longer, prompts = [], [], []
    for number, (old, new) in enumerate(zip(olds, news, strict=True)):
        if not len(old.rewards) or not len(new.rewards):
            raise ValueError("a prompt without answers of one of the models has no comparisons")
        first, second = _pairs(len(old.rewards), len(new.rewards))
        news_P, olds_P = np.asarray(new.rewards)[second], np.asarray(old.rewards)[first]
        wins.append((news_P > olds_P) + 0.5 * (news_P == olds_P))
        longer.append(np.asarray(new.lengths, dtype=np.float64)[second] - np.asarray(old.lengths)[first])
        prompts.append(np.full(len(first), number))
    if not wins:
        raise ValueError("there is nothing to compare")
    return Comparisons(np.concatenate(wins), np.concatenate(longer), np.concatenate(prompts))


def _pairs(olds: int, news: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of the old and the new answers that are compared."""
    if max(olds, news) <= MOST_COMPARED:
        first, second = np.divmod(np.arange(olds * news), news)
        return first, second
    rounds = min(olds, news, MOST_COMPARED)
    places, shift = (grid.ravel() for grid in np.meshgrid(np.arange(max(olds, news)), np.arange(rounds)))
    few = (places + shift) % min(olds, news)
    return (few, places) if olds <= news else (places, few)
