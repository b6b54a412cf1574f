"""The 95% intervals hold the truth in 93% to 97% of simulated experiments; the whole table is in docs/win-rates.md."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simulated_answers import Population, draw, gain_for, mean_rewards, true_length_controlled, true_win_rate
from tiltlm.evaluation.length_control import length_controlled
from tiltlm.runs.estimates import Interval
from tiltlm.statistics import STUDIED_FROM, bootstrap_mean, mean_change_of_share, mean_share

LOW, HIGH = 0.93, 0.97


def covered(intervals: list[Interval | None], truth: float) -> float:
    given = [interval for interval in intervals if interval is not None]
    assert len(given) >= 0.95 * len(intervals)
    return sum(low - 1e-9 <= truth <= high + 1e-9 for low, high in given) / len(given)


@pytest.mark.parametrize("prompts", [STUDIED_FROM, 32, 64, 128])
@pytest.mark.parametrize(("rate", "zeros"), [(0.5, 0.0), (0.5, 0.2), (0.7, 0.2), (0.9, 0.0)])
def test_win_rates(prompts: int, rate: float, zeros: float) -> None:
    population, rng = gain_for(rate, samples=2, zeros=zeros), np.random.default_rng(prompts)
    found = [mean_share(draw(population, prompts, rng).shares().tolist()).interval for _ in range(3000)]
    assert LOW <= covered(found, rate) <= HIGH


@pytest.mark.parametrize("prompts", [32, 64, 128])
@pytest.mark.parametrize("rate", [0.5, 0.7, 0.9])
def test_win_rates_of_one_sample_to_a_prompt(prompts: int, rate: float) -> None:
    """Each comparison won or lost: their number is binomial, and the coverage a sum, with no simulation."""
    total = 0.0
    for won in range(prompts + 1):
        low, high = mean_share([1.0] * won + [0.0] * (prompts - won)).interval or (0, 0)
        total += math.comb(prompts, won) * rate**won * (1 - rate) ** (prompts - won) * (low <= rate <= high)
    assert LOW <= total <= HIGH


@pytest.mark.parametrize("prompts", [STUDIED_FROM, 32, 64])
@pytest.mark.parametrize(
    "population",
    [Population(2, 0.0, by_length=1.0), gain_for(0.7, 2, 0.5, 0.4, 0.2), gain_for(0.8, 2, 1.0, 0.2)],
    ids=["length-alone", "some-length", "most-wins"],
)
def test_length_controlled_win_rates(population: Population, prompts: int) -> None:
    rng = np.random.default_rng(prompts)
    truth, error = true_length_controlled(population, rng, times=5)
    assert error < 0.002
    found = [length_controlled(draw(population, prompts, rng).comparisons()).estimate for _ in range(2000)]
    assert LOW <= covered([each.interval if each else None for each in found], truth) <= HIGH


@pytest.mark.parametrize("prompts", [STUDIED_FROM, 64])
@pytest.mark.parametrize("kind", ["normal", "sentiment"])
def test_mean_rewards(kind: str, prompts: int) -> None:
    rng = np.random.default_rng(prompts)
    truth = float(mean_rewards(kind, 500_000, 2, rng).mean())
    found = [bootstrap_mean(mean_rewards(kind, prompts, 2, rng).tolist(), resamples=1000) for _ in range(2500)]
    assert LOW <= covered([each.interval for each in found], truth) <= HIGH


@pytest.mark.parametrize("prompts", [STUDIED_FROM, 64])
def test_changes_of_rewards(prompts: int) -> None:
    """Prompt by prompt, so that what a prompt's answers share cancels; rewards like those of VADER."""
    rng, population = np.random.default_rng(prompts), Population(2, 0.5, zeros=0.2)

    def changes(number: int) -> np.ndarray:
        drawn = draw(population, number, rng)
        found: np.ndarray = np.tanh(drawn.new_rewards).mean(axis=1) - np.tanh(drawn.old_rewards).mean(axis=1)
        return found

    truth = float(changes(500_000).mean())
    found = [bootstrap_mean(changes(prompts).tolist(), resamples=1000) for _ in range(2500)]
    assert LOW <= covered([each.interval for each in found], truth) <= HIGH


@pytest.mark.parametrize("prompts", [32, 64, 128])
def test_rewards_that_are_right_or_wrong(prompts: int) -> None:
    """Nine of ten right: the bootstrap, for which most samples are all right, does not hold the truth often enough."""
    rng = np.random.default_rng(prompts)
    truth = float(mean_rewards("right or wrong, 90%", 500_000, 2, rng).mean())
    drawn = [mean_rewards("right or wrong, 90%", prompts, 2, rng).tolist() for _ in range(3000)]
    assert LOW <= covered([mean_share(each).interval for each in drawn], truth) <= HIGH
    if prompts == 32:
        few = [bootstrap_mean(each[:16], resamples=500).interval for each in drawn[:600]]
        assert covered(few, truth) < LOW
    # As changes, where the model was always wrong before.
    moved = [mean_change_of_share(each).interval for each in drawn]
    assert covered(moved, truth) >= LOW


def test_the_truth_that_intervals_are_held_to_is_true() -> None:
    rng = np.random.default_rng(0)
    for population in (Population(2, 0.8, 1.0, 0.3, 0.25), gain_for(0.7, 2, 0.5, 0.4, 0.2)):
        shares = draw(population, 300_000, rng).shares()
        assert shares.mean() == pytest.approx(true_win_rate(population), abs=4 * shares.std() / math.sqrt(300_000))
    assert true_win_rate(gain_for(0.7, 2, 0.5, 0.4, 0.2)) == pytest.approx(0.7)
    with pytest.raises(ValueError, match="cannot be"):
        gain_for(0.95, zeros=0.3)
    # By symmetry: neither model gains, and the lengths of both are alike.
    assert true_length_controlled(Population(2, 0.0, 1.0), rng, times=3)[0] == pytest.approx(0.5, abs=0.005)
