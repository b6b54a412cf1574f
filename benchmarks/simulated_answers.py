"""Answers before and after training as a model of chance makes them, with the truth: for studies of intervals.

A prompt has a level of its own, which its answers share, and a gain of its own, so that all comparisons of a prompt go
together. Rewards may grow with length, and a share of answers gets a reward of exactly 0, so that there are ties.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from tiltlm.evaluation.length_control import length_controlled
from tiltlm.evaluation.win_rates import Comparisons

# Spreads on the scale of the noise of one answer's reward, and of the logarithm of its length.
GAIN, LEVEL, LENGTH_OF_PROMPT, LENGTH_OF_ANSWER, LONGER_OF_PROMPT = 0.7, 0.6, 0.4, 0.3, 0.2
MIDDLE_LENGTH, LONGEST = 30, 128
LARGE, TIMES = 40_000, 12
"""Prompts of one draw, and how many draws, from which a truth that has no closed form is taken."""


@dataclass(frozen=True, slots=True)
class Population:
    """What answers are drawn from.

    samples: answers to a prompt, of either model. gain: mean rise of the reward, in units of its noise.
    by_length: how much the reward rises with the logarithm of the length. longer: mean rise of that logarithm.
    zeros: share of answers with a reward of exactly 0.
    """

    samples: int
    gain: float
    by_length: float = 0.0
    longer: float = 0.0
    zeros: float = 0.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rewards and lengths of the answers of both models, each of shape (prompts, samples)."""

    old_rewards: np.ndarray
    new_rewards: np.ndarray
    old_lengths: np.ndarray
    new_lengths: np.ndarray

    def shares(self) -> np.ndarray:
        """The share of each prompt's comparisons that the new answers win, shape (prompts,)."""
        shares: np.ndarray = self.comparisons().wins.reshape(len(self.old_rewards), -1).mean(axis=1)
        return shares

    def comparisons(self) -> Comparisons:
        """Every new answer with every old one of its prompt."""
        old, new = self.old_rewards[:, :, None], self.new_rewards[:, None, :]
        wins = (new > old) + 0.5 * (new == old)
        longer = self.new_lengths[:, None, :] - self.old_lengths[:, :, None]
        return Comparisons(wins.ravel(), longer.ravel(), np.repeat(np.arange(len(wins)), wins[0].size))


def draw(population: Population, prompts: int, generator: np.random.Generator) -> Drawn:
    """Answers to so many prompts."""
    shape, normal = (prompts, population.samples), generator.normal
    level, gain = normal(0, LEVEL, (prompts, 1)), normal(population.gain, GAIN, (prompts, 1))
    usual = normal(0, LENGTH_OF_PROMPT, (prompts, 1))
    old_logs = usual + normal(0, LENGTH_OF_ANSWER, shape)
    new_logs = usual + normal(population.longer, LONGER_OF_PROMPT, (prompts, 1)) + normal(0, LENGTH_OF_ANSWER, shape)
    olds, news = (
        np.where(generator.random(shape) < population.zeros, 0.0, rewards)
        for rewards in (
            level + population.by_length * old_logs + normal(0, 1, shape),
            level + gain + population.by_length * new_logs + normal(0, 1, shape),
        )
    )
    old_lengths, new_lengths = (
        np.clip(np.round(MIDDLE_LENGTH * np.exp(logs)), 1, LONGEST) for logs in (old_logs, new_logs)
    )
    return Drawn(olds, news, old_lengths, new_lengths)


def true_win_rate(population: Population) -> float:
    """P(new > old) + P(new = old) / 2 over all prompts, by normal distributions."""
    by, zeros = population.by_length, population.zeros
    gain = population.gain + by * population.longer
    lengths = LENGTH_OF_PROMPT**2 + LENGTH_OF_ANSWER**2
    apart = GAIN**2 + 2 + by**2 * (2 * LENGTH_OF_ANSWER**2 + LONGER_OF_PROMPT**2)
    of_new = LEVEL**2 + GAIN**2 + 1 + by**2 * (lengths + LONGER_OF_PROMPT**2)
    both, above_zero = (NormalDist().cdf(gain / math.sqrt(variance)) for variance in (apart, of_new))
    # Of one reward that is 0: the old ones lie around 0, the new ones around the gain. Two of them are a tie.
    return (1 - zeros) ** 2 * both + zeros * (1 - zeros) * (0.5 + above_zero) + zeros**2 / 2


def true_length_controlled(
    population: Population, generator: np.random.Generator, times: int = TIMES
) -> tuple[float, float]:
    """What the regression gives of very many prompts, and the standard error of that figure."""
    found = [length_controlled(draw(population, LARGE, generator).comparisons()).estimate for _ in range(times)]
    means = [estimate.mean for estimate in found if estimate is not None]
    return float(np.mean(means)), float(np.std(means, ddof=1) / math.sqrt(len(means)))


def gain_for(
    rate: float, samples: int = 2, by_length: float = 0.0, longer: float = 0.0, zeros: float = 0.0
) -> Population:
    """The population whose new answers win at this rate, if they can with so many zeros.

    Raises:
        ValueError: they cannot.
    """
    low, high = -20.0, 20.0
    if not true_win_rate(Population(1, low, by_length, longer, zeros)) < rate < 1 - zeros / 2 - zeros * (1 - zeros) / 2:
        raise ValueError(f"with a share of {zeros} of zeros the win rate cannot be {rate}")
    for _ in range(80):
        middle = (low + high) / 2
        below = true_win_rate(Population(1, middle, by_length, longer, zeros)) < rate
        low, high = (middle, high) if below else (low, middle)
    return Population(samples, (low + high) / 2, by_length, longer, zeros)


def mean_rewards(kind: str, prompts: int, samples: int, generator: np.random.Generator) -> np.ndarray:
    """Mean rewards of prompts, shape (prompts,), from the distribution of this name; `REWARDS` tells them."""
    level = generator.normal(0, LEVEL, (prompts, 1))
    rewards: np.ndarray = REWARDS[kind](level + generator.normal(0, 0.8, (prompts, samples))).mean(axis=1)
    return rewards


def _sentiment(values: np.ndarray) -> np.ndarray:
    """As VADER's: between -1 and 1, many near 1, some exactly 0."""
    return np.where(np.abs(values + 0.7) < 0.35, 0.0, np.tanh(values + 0.7))


REWARDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "normal": lambda values: values,
    "sentiment": _sentiment,
    "right or wrong, 90%": lambda values: (values > NormalDist().inv_cdf(0.1)).astype(float),
    "lognormal": np.exp,
}
"""From normal values of variance 1 to rewards."""
