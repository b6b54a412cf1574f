"""Credit by token: which tokens of an answer its score is owed to.

A score comes with the whole answer. The value of a state, V(x, y_<t), is the score that an answer that begins like this
has on average; so the difference of two values is what a token did for it. Values are found by ridge regression of the
score on what the model makes of the state, over all states of all answers, and those of an example by the examples of
other prompts alone: what an answer came to says nothing of its own values.

Shape suffixes: S scored tokens (so states: the one before each token), F features.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from tiltlm.data.tokens.grouping import prompt_groups
from tiltlm.data.tokens.token_columns import TokenColumns

TRACE = 0.5
"""How much of the surprise of a later step a token is held to, by each step between (lambda of J. Schulman et al.,
arXiv 1506.02438, eq. 16). At 0 values are trusted wholly, at 1 all that follows counts, as noisy as the whole score."""
FOLDS = 8
"""Parts of the prompts: the values of each by the others."""
PENALTIES = tuple(10.0 ** (half / 2) for half in range(-4, 5))
"""Tried, in units of one standardised feature's sum of squares; taken is what foretells best."""


@dataclass(frozen=True, slots=True, eq=False)
class Regression:
    """Values as a function of states: of standardised features, with the mean score added.

    explained: share of the variance of scores that it foretells at states of prompts that it has not seen, 1 at most;
        at or below 0 it says nothing.
    """

    weights_F: np.ndarray
    center_F: np.ndarray
    spread_F: np.ndarray
    mean: float
    explained: float

    def __call__(self, features_SF: np.ndarray) -> np.ndarray:
        """Values of states, float64, shape (S,)."""
        values: np.ndarray = (features_SF - self.center_F) / self.spread_F @ self.weights_F + self.mean
        return values


def values_of_states(features_SF: np.ndarray, columns: TokenColumns) -> tuple[np.ndarray, Regression]:
    """V of every state of the columns, found without its own prompt, and the regression on all of them.

    features_SF: of every state. columns: with a score of each sequence, of two prompts or more.

    Raises:
        ValueError: all examples have one prompt.
    """
    counts = columns.scored_tokens
    prompts = np.repeat(np.repeat(prompt_groups(columns), np.diff(columns.members)), counts)
    fold_S = prompts % min(FOLDS, int(prompts.max()) + 1)
    if not fold_S.any():
        raise ValueError("values of states take two prompts at least")
    scores_S = np.repeat(columns.scores.astype(np.float64), counts)
    center_F, spread_F = features_SF.mean(0, dtype=np.float64), features_SF.std(0, dtype=np.float64)
    spread_F[spread_F == 0] = 1.0
    mean = float(scores_S.mean())
    target_S = scores_S - mean
    folds = range(int(fold_S.max()) + 1)
    standard = [(features_SF[fold_S == fold] - center_F) / spread_F for fold in folds]
    products = [(own.T @ own, own.T @ target_S[fold_S == fold]) for fold, own in zip(folds, standard, strict=True)]
    gram_FF, slope_F = sum(gram for gram, _ in products), sum(slope for _, slope in products)
    best, best_error, weights_F = np.zeros(len(target_S)), np.inf, np.zeros(len(center_F))
    unit = len(target_S) * np.eye(len(center_F))
    for penalty in PENALTIES:
        values_S = np.empty(len(target_S))
        for fold, own in zip(folds, standard, strict=True):
            gram, slope = products[fold]
            values_S[fold_S == fold] = own @ np.linalg.solve(gram_FF - gram + penalty * unit, slope_F - slope)
        error = float(np.square(target_S - values_S).mean())
        if error < best_error:
            best, best_error = values_S, error
            weights_F = np.linalg.solve(gram_FF + penalty * unit, slope_F)
    variance = float(np.square(target_S).mean())
    explained = 1 - best_error / variance if variance else 0.0
    return best + mean, Regression(weights_F, center_F, spread_F, mean, explained)


def credit(values_S: np.ndarray, columns: TokenColumns) -> np.ndarray:
    """What each scored token did for its answer's score, float32, shape (S,), in units of the score.

        d_t = V(after y_t) - V(before y_t), with the score itself after the last token;  A_t = d_t + TRACE * A_{t+1}

    (arXiv 1506.02438, eq. 16, undiscounted.) Each difference counts with the tokens before it too, so those of an
    answer add up to nearly 1 / (1 - TRACE) times, here twice, what its score was above the prompt's value.
    """
    ends = columns.scored_starts[1:] - 1
    after_S = np.append(values_S[1:], 0.0)
    after_S[ends] = columns.scores
    credit_S = after_S - values_S
    counts = columns.scored_tokens
    # From the last token but one of every answer to the first, all answers at once.
    for back in range(1, int(counts.max(initial=0))):
        at = ends[counts > back] - back
        credit_S[at] += TRACE * credit_S[at + 1]
    found: np.ndarray = credit_S.astype(np.float32)
    return found


def features_of_states(middle_SD: np.ndarray, later_SD: np.ndarray, columns: TokenColumns) -> np.ndarray:
    """What values are learnt from, float32, shape (S, 2 D): the last token, and the answer's tokens so far.

    middle_SD, later_SD: what a layer in the middle of the model's depth, and a later one, made of the last token of
        each state.
    """
    return np.concatenate([later_SD, sums_from_second(middle_SD, columns)], axis=1)


def sums_from_second(states_SD: np.ndarray, columns: TokenColumns) -> np.ndarray:
    """At each state the sum over the answer's tokens so far of what the model made of them: nothing before the first.

    states_SD: what the model makes of the last token of each state, which before an answer's first token is the
        prompt's.
    """
    summed = states_SD.astype(np.float64)
    summed[columns.scored_starts[:-1]] = 0.0
    for start, end in itertools.pairwise(columns.scored_starts.tolist()):
        np.cumsum(summed[start:end], axis=0, out=summed[start:end])
    return summed.astype(np.float32)
