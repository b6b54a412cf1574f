"""Figures that tell of who wrote the answers, from what the model expected of each of their tokens.

Had the model written an answer at temperature T, then of each token, given all that stands before it, the surprise
-log pi_T(y_t) would exceed the entropy there by nothing on average, and by the variance of the surprise in the mean
square. Such excesses add up as those of a fair game do (a martingale), so that sums over any answers are known to be
nought, give or take the root of the summed variances, however long the answers are and whatever prefixes they have.
No sample is needed for it, and cutting an answer short does not matter, but for the token that ends it, which is left
out. From this follow, in order:

- the temperature: excesses add up to nought at one T alone, the likeliest (the likelihood's slope by 1/T is the summed
  excess of logits);
- two tests of the model at that temperature, by the squares of single tokens' and of whole answers' excesses, which
  others miss: their tokens are more or less predictable than the model holds them for, and an answer that surprises
  once surprises again;
- which answers the model could have said: those whose excess at T = 1 is within what chance explains.

The mean surprise against the model's own samples, the gap, is beside them: it sees lengths and topics too.
Source: theory.pdf, Proposition 18 (surprise); P. Hall, C. C. Heyde, Martingale Limit Theory (1980), chapter 3.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from tiltlm.resampling import effective_share, of_sums, ratio
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.pair_origins import PairOrigins
from tiltlm.statistics import bootstrap_mean, cluster_sums, effective_number, wilson_interval

TEMPERATURES = tuple(2 ** (power / 2) for power in range(-4, 3))
"""At which the model is asked: from 1/4, nearly greedy, to 2, where small models write no language. Between them is
interpolated."""
HALF, ONE = TEMPERATURES.index(0.5), TEMPERATURES.index(1.0)
STEPS = 64
"""Parts into which each interval between temperatures is divided in looking for the likeliest."""
SAYABLE = 2.326
"""Standard deviations by which an answer may surprise more than expected: 99 in 100 of the model's own stay within."""


@dataclass(frozen=True, slots=True, eq=False)
class AskedTokens:
    """Tokens of answers, and what the model expected of them. T tokens.

    moments_TKM: surprise, excess and variance at each of `TEMPERATURES`, shape (T, K, 3); see `tempered_moments`.
    answer_T: the number of each token's answer. end_T: whether it ends the answer. first_T: whether it is compared
    with samples.
    prompt_A, label_A: of each answer, its prompt's number and its label; `own_A`: whether it is the model's sample.
    """

    moments_TKM: np.ndarray
    answer_T: np.ndarray
    end_T: np.ndarray
    first_T: np.ndarray
    prompt_A: np.ndarray
    label_A: np.ndarray
    own_A: np.ndarray

    def sums(self, values_T: np.ndarray, counted_T: np.ndarray) -> np.ndarray:
        """Sums by answer over the tokens that count, shape (A,)."""
        found: np.ndarray = np.bincount(self.answer_T[counted_T], values_T[counted_T], minlength=len(self.prompt_A))
        return found


def origin_figures(asked: AskedTokens, labels: tuple[int, int], first_tokens: int, too_long: int = 0) -> PairOrigins:
    """The figures of some answers.

    Args:
        labels: of chosen and of rejected answers.
        first_tokens, too_long: see `PairOrigins`.
    """
    surprise_T, every_T = asked.moments_TKM[:, ONE, 0], np.ones(len(asked.answer_T), dtype=bool)
    lengths_A = asked.sums(np.ones(len(surprise_T)), asked.first_T)
    surprise_A = asked.sums(surprise_T, asked.first_T) / np.maximum(lengths_A, 1)
    own = _by_prompt(surprise_A, asked, asked.own_A)
    sides = [_by_prompt(surprise_A, asked, (asked.label_A == label) & ~asked.own_A) for label in labels]
    given = _by_prompt(surprise_A, asked, ~asked.own_A)
    fitted = _fitted(asked)
    aligned_A = asked.sums(surprise_T - asked.moments_TKM[:, HALF, 0], every_T) / asked.sums(every_T * 1.0, every_T)
    weights_P = np.bincount(asked.prompt_A[~asked.own_A], aligned_A[~asked.own_A])
    return PairOrigins(
        prompts=len(own),
        too_long=too_long,
        first_tokens=first_tokens,
        chosen=_mean(sides[0]),
        rejected=_mean(sides[1]),
        own=bootstrap_mean(list(own.values())),
        gap=_difference(given, own),
        chosen_minus_own=_difference(sides[0], own) if sides[0] else None,
        rejected_minus_own=_difference(sides[1], own) if sides[1] else None,
        temperature=fitted[0],
        temperatures_tried=(TEMPERATURES[0], TEMPERATURES[-1]),
        token_scatter=fitted[1],
        answer_scatter=fitted[2],
        sayable=_sayable(asked, ~asked.own_A),
        own_sayable=_sayable(asked, asked.own_A),
        aligned=effective_share(weights_P, range(len(weights_P))),
    )


def _by_prompt(values_A: np.ndarray, asked: AskedTokens, counted_A: np.ndarray) -> dict[int, float]:
    """Of each prompt that has such answers, their mean."""
    prompts = asked.prompt_A[counted_A]
    return {int(one): float(values_A[counted_A][prompts == one].mean()) for one in np.unique(prompts)}


def _mean(by_prompt: dict[int, float]) -> Estimate | None:
    return bootstrap_mean(list(by_prompt.values())) if by_prompt else None


def _difference(these: dict[int, float], own: dict[int, float]) -> Estimate:
    return bootstrap_mean([value - own[prompt] for prompt, value in these.items()])


def _fitted(asked: AskedTokens) -> tuple[Estimate, Estimate, Estimate]:
    """The likeliest temperature of the given answers, and the scatter of tokens and of answers at it.

    The interval of the scatter takes the temperature as known: what it lacks moves the scatter by next to nothing, as
    the excess is nought in sum.
    """
    counted_T = ~asked.own_A[asked.answer_T] & ~asked.end_T
    if not counted_T.any():  # answers that are empty, all of them
        counted_T = ~asked.own_A[asked.answer_T]
    moments_TKM, prompt_T = asked.moments_TKM[counted_T], asked.prompt_A[asked.answer_T[counted_T]]
    tried = np.array(TEMPERATURES)
    # The excess of logits, z - E_T[z], whose slope by T is the variance of the surprise.
    logits_TK, slopes_TK = -moments_TKM[:, :, 1] * tried, moments_TKM[:, :, 2]
    sums_PK = cluster_sums(np.concatenate([logits_TK, slopes_TK], 1), prompt_T)
    temperature = of_sums(sums_PK, likeliest)
    matrix = _hermite(np.array([temperature.mean]))
    excess_T = -(np.concatenate([logits_TK, slopes_TK], 1) @ matrix.T)[:, 0] / temperature.mean
    # Of the variance no slope is known: a straight line between two temperatures.
    at = int(np.clip(np.searchsorted(tried, temperature.mean) - 1, 0, len(tried) - 2))
    share = (temperature.mean - tried[at]) / (tried[at + 1] - tried[at])
    variance_T = (1 - share) * slopes_TK[:, at] + share * slopes_TK[:, at + 1]
    tokens = cluster_sums(np.stack([excess_T**2, variance_T], 1), prompt_T)
    of_answers = cluster_sums(np.stack([excess_T, variance_T], 1), asked.answer_T[counted_T])
    prompt_of = asked.prompt_A[np.unique(asked.answer_T[counted_T])]
    answers = cluster_sums(np.stack([of_answers[:, 0] ** 2, of_answers[:, 1]], 1), prompt_of)
    return temperature, of_sums(tokens, ratio), of_sums(answers, ratio)


def likeliest(sums_R2K: np.ndarray) -> np.ndarray:
    """The temperature at which summed excesses of logits are nought, shape (R,): see `TEMPERATURES`, which bound it.

    Args:
        sums_R2K: those sums at each temperature, then their slopes by it, shape (R, 2K). They rise with it.
    """
    parts = [np.linspace(low, high, STEPS, endpoint=False) for low, high in itertools.pairwise(TEMPERATURES)]
    points = np.concatenate([*parts, TEMPERATURES[-1:]])
    excess_RX = sums_R2K @ _hermite(points).T
    above_R = np.argmax(excess_RX > 0, axis=1)
    none_R, rows = ~(excess_RX > 0).any(axis=1), np.arange(len(excess_RX))
    below_R = np.maximum(above_R - 1, 0)
    low, high = excess_RX[rows, below_R], excess_RX[rows, above_R]
    share = np.where(high > low, -low / np.where(high > low, high - low, 1), 0).clip(0, 1)
    found: np.ndarray = np.where(none_R, points[-1], points[below_R] + share * (points[above_R] - points[below_R]))
    return found


def _hermite(points: np.ndarray) -> np.ndarray:
    """What values and slopes at `TEMPERATURES` are multiplied by for those at some points, shape (X, 2K): cubics."""
    tried = np.array(TEMPERATURES)
    at = np.clip(np.searchsorted(tried, points, side="right") - 1, 0, len(tried) - 2)
    width = tried[at + 1] - tried[at]
    t = (points - tried[at]) / width
    rows, matrix = np.arange(len(points)), np.zeros((len(points), 2 * len(tried)))
    matrix[rows, at], matrix[rows, at + 1] = 2 * t**3 - 3 * t**2 + 1, 3 * t**2 - 2 * t**3
    matrix[rows, len(tried) + at] = (t**3 - 2 * t**2 + t) * width
    matrix[rows, len(tried) + at + 1] = (t**3 - t**2) * width
    return matrix


def _sayable(asked: AskedTokens, counted_A: np.ndarray) -> Estimate:
    """The share of answers that surprise no more than expected, give or take; by Wilson's interval over prompts.

    One side alone: what is less surprising than expected is what the model says most readily.
    """
    words_T = ~asked.end_T
    excess_A = asked.sums(asked.moments_TKM[:, ONE, 1], words_T)
    variance_A = asked.sums(asked.moments_TKM[:, ONE, 2], words_T)
    # Rounding leaves something of the excess of tokens that could be no others.
    said_A = excess_A <= SAYABLE * np.sqrt(variance_A) + 1e-3
    trials = effective_number(asked.prompt_A[counted_A])
    share = float(said_A[counted_A].mean())
    return Estimate(share, wilson_interval(share * trials, trials), int(trials))
