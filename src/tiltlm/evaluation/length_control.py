"""The win rate that there would be if the answers of both models were of one length. Knows no torch.

Judges, and known rewards too, tend to like long answers. A logistic regression tells apart what length explains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tiltlm.evaluation.win_rates import Comparisons
from tiltlm.runs.estimates import Estimate
from tiltlm.statistics import student_95

STEPS = 60
"""Newton steps that a fit may take; where a maximum exists, some ten are enough."""
CONVERGED = 1e-10
"""Gradient of the mean log-likelihood at which a fit has ended, and an error that is nothing but rounding."""


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A length-controlled win rate, or why there is none.

    estimate: with its 95% interval over prompts. slope: phi of the regression, on the log-odds; above zero where longer
    answers win more often. why: what is missing, as a clause; None where there is an estimate.
    """

    estimate: Estimate | None
    slope: float | None = None
    why: str | None = None


def length_controlled(compared: Comparisons) -> LengthControlled:
    """The win rate at a difference of zero between the lengths, by a logistic regression of wins on that difference.

        P(new beats old) = sigmoid(theta + phi * tanh(d / s)),    estimate = sigmoid(theta)

    with d = |new| - |old| and s the standard deviation of d: Y. Dubois, B. Galambosi, P. Liang, T. Hashimoto,
    Length-Controlled AlpacaEval, arXiv 2404.04475, section 3. Two things differ from there. Their third term, how hard
    an instruction is, is fitted to many models and shared among them; here are two, and it is left out. And theirs is
    held by a penalty (L1, in their code) and by answers made longer and shorter on purpose; here the likelihood alone
    is maximised, so that exchanging the models gives 1 - p, and where it has no maximum there is no figure. Each prompt
    weighs alike, ties are half a win and half a loss.

    The interval leaves out one prompt at a time, to first order, on the log-odds, with Student's quantile of as many
    degrees of freedom as there are prompts less one: the cluster jackknife CV3L of J. G. MacKinnon, M. O. Nielsen,
    M. D. Webb, arXiv 2406.00650. s is taken as given.

    What the figure is not: the win rate of answers that were asked to be short. Length is held where it is by
    arithmetic, by the shape above, and what comes with length (an argument made in full) is taken away with it.
    """
    why = _unidentified(compared)
    if why is not None:
        return LengthControlled(None, why=why)
    weights_P = _weights(compared.prompts)
    features_PK = _features(compared.longer, weights_P)
    unsolved = "the regression of wins on the difference of lengths did not converge"
    try:
        fitted_K = _fitted(features_PK, compared.wins, weights_P)
        if fitted_K is None:
            return LengthControlled(None, why=unsolved)
        error = _error(features_PK, compared, weights_P, fitted_K)
    except np.linalg.LinAlgError:
        # A maximum that is there, but further out than floats can tell apart.
        return LengthControlled(None, why=unsolved)
    prompts, theta = int(compared.prompts.max()) + 1, float(fitted_K[0])
    if error < CONVERGED:
        return LengthControlled(None, why="every prompt says the same, which leaves no spread to judge it by")
    half = student_95(prompts - 1) * error
    interval = (_sigmoid(theta - half), _sigmoid(theta + half))
    return LengthControlled(Estimate(_sigmoid(theta), interval, prompts), float(fitted_K[1]))


def _unidentified(compared: Comparisons) -> str | None:
    """Why the regression has no single maximum, or its value at zero would be a guess; None where it has one."""
    longer, wins = compared.longer, compared.wins
    if longer.min() == longer.max():
        if longer[0] == 0:
            return "the answers compared are all of one length, so that the win rate is of equal lengths as it is"
        return "every new answer differs from the old one by the same length"
    if longer.min() > 0 or longer.max() < 0:
        side = "longer" if longer.min() > 0 else "shorter"
        return f"every new answer is {side} than the old one, so that nothing is seen of equal lengths"
    lowest, highest = _extremes(compared)
    if wins.min() == wins.max():
        what = {0.0: "lost", 0.5: "a tie", 1.0: "won"}[float(wins[0])]
        return f"every comparison is {what}, whatever the lengths, so that length has nothing to explain"
    if not _overlap(lowest.min(axis=0), highest.max(axis=0)):
        return "length alone tells every win from every loss, so that the regression has no finite solution"
    prompts = len(lowest)
    if prompts == 1:
        return "one prompt has no spread"
    if not _overlap(_without_each(lowest).T, -_without_each(-highest).T).all():
        return "it hangs on a single prompt, without which the regression has no finite solution"
    return None


def _extremes(compared: Comparisons) -> tuple[np.ndarray, np.ndarray]:
    """Of each prompt the smallest and largest difference of lengths, shape (prompts, 2), among (half) wins, losses."""
    prompts = int(compared.prompts.max()) + 1
    lowest, highest = np.full((prompts, 2), np.inf), np.full((prompts, 2), -np.inf)
    for column, mass in enumerate((compared.wins > 0, compared.wins < 1)):
        np.minimum.at(lowest[:, column], compared.prompts[mass], compared.longer[mass])
        np.maximum.at(highest[:, column], compared.prompts[mass], compared.longer[mass])
    return lowest, highest


def _overlap(lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Whether wins and losses overlap in length: then, and only then, the likelihood has one finite maximum.

    Source: M. J. Silvapulle, J. R. Stat. Soc. B 43 (1981) 310-313. The first axis is that of wins and losses.
    """
    found: np.ndarray = (lowest[0] < highest[1]) & (lowest[1] < highest[0])
    return found


def _without_each(values_GK: np.ndarray) -> np.ndarray:
    """The least of each column without each row in turn, of the same shape."""
    least_K, second_K = np.partition(values_GK, 1, axis=0)[:2]
    others: np.ndarray = np.where(values_GK == least_K, second_K, least_K)
    return others


def _weights(prompts_P: np.ndarray) -> np.ndarray:
    """Of each comparison, so that every prompt weighs 1 in the sum."""
    weights: np.ndarray = 1 / np.bincount(prompts_P)[prompts_P]
    return weights


def _features(longer_P: np.ndarray, weights_P: np.ndarray) -> np.ndarray:
    """The constant and tanh(d / s), shape (P, 2); s is taken about the mean, each prompt weighing alike."""
    mean = float(np.average(longer_P, weights=weights_P))
    deviation = math.sqrt(float(np.average((longer_P - mean) ** 2, weights=weights_P)))
    return np.stack([np.ones_like(longer_P), np.tanh(longer_P / deviation)], axis=1)


def _fitted(features_PK: np.ndarray, wins_P: np.ndarray, weights_P: np.ndarray) -> np.ndarray | None:
    """The coefficients, shape (2,), of the highest weighted likelihood, by Newton's method with halved steps."""
    now_K, total = np.zeros(features_PK.shape[1]), weights_P.sum()
    value = _likelihood(features_PK @ now_K, wins_P, weights_P)
    for _ in range(STEPS):
        chance_P = _sigmoid_of(features_PK @ now_K)
        gradient_K = features_PK.T @ (weights_P * (wins_P - chance_P))
        if np.abs(gradient_K).max() <= CONVERGED * total:
            return now_K
        step_K = np.linalg.solve(_information(features_PK, weights_P * chance_P * (1 - chance_P)), gradient_K)
        for _ in range(STEPS):
            further = _likelihood(features_PK @ (now_K + step_K), wins_P, weights_P)
            # Near the maximum the likelihood changes by less than its own rounding.
            if further >= value - 1e-12 * abs(value):
                break
            step_K = step_K / 2
        now_K, value = now_K + step_K, further
    return None


def _likelihood(odds_P: np.ndarray, wins_P: np.ndarray, weights_P: np.ndarray) -> float:
    return float(np.sum(weights_P * (wins_P * odds_P - np.logaddexp(0, odds_P))))


def _information(features_PK: np.ndarray, weights_P: np.ndarray) -> np.ndarray:
    information: np.ndarray = features_PK.T @ (features_PK * weights_P[:, None])
    return information


def _error(features_PK: np.ndarray, compared: Comparisons, weights_P: np.ndarray, fitted_K: np.ndarray) -> float:
    """The standard error of theta: what it would be without each prompt in turn, by one Newton step from the whole."""
    chance_P, count = _sigmoid_of(features_PK @ fitted_K), int(compared.prompts.max()) + 1

    def summed(values_P: np.ndarray) -> np.ndarray:
        return np.bincount(compared.prompts, weights=weights_P * values_P, minlength=count)

    columns = features_PK.T
    scores_GK = np.stack([summed(column * (compared.wins - chance_P)) for column in columns], axis=1)
    spread_P = chance_P * (1 - chance_P)
    own_GKK = np.stack([[summed(one * other * spread_P) for other in columns] for one in columns]).transpose(2, 0, 1)
    moved_GK = np.linalg.solve(own_GKK.sum(axis=0)[None] - own_GKK, scores_GK[:, :, None])[:, :, 0]
    return math.sqrt((count - 1) / count * float(np.sum(moved_GK[:, 0] ** 2)))


def _sigmoid_of(odds: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.exp(-np.logaddexp(0, -odds))
    return found


def _sigmoid(odds: float) -> float:
    return float(_sigmoid_of(np.asarray(odds)))
