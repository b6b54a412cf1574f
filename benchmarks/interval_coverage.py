"""How often the 95% intervals of win rates and mean rewards hold the truth, in simulated studies.

    python benchmarks/interval_coverage.py                       20 to 40 minutes on one core
    python benchmarks/interval_coverage.py --repetitions 500     a quick look

Figures go to benchmarks/results/interval-coverage/; the table of docs/win-rates.md is printed last. What is drawn is
told in simulated_answers.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path

import numpy as np
import tyro

from machine import Circumstances, circumstances, write_record
from simulated_answers import (
    LEVEL,
    REWARDS,
    Population,
    draw,
    gain_for,
    mean_rewards,
    true_length_controlled,
    true_win_rate,
)
from tiltlm.evaluation.length_control import length_controlled
from tiltlm.runs.estimates import Estimate, Interval
from tiltlm.statistics import bootstrap_mean, mean_change_of_share, mean_share

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "interval-coverage"
PROMPTS, SAMPLES = (8, 16, 32, 64, 128), (1, 2, 4)
LARGE = 2_000_000
RAW, CONTROLLED, MEAN, CHANGE = "win rate", "length-controlled win rate", "mean reward", "change of mean reward"
USUAL, BINARY = ("normal", "sentiment"), "right or wrong, 90%"


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure in one setting.

    truth: what the intervals should hold. error: its standard error, where it was itself simulated.
    given: share of the experiments in which there was an interval.
    covered: share of these whose interval held the truth.
    """

    figure: str
    setting: str
    samples: int
    prompts: int
    truth: float
    error: float
    given: float
    covered: float


@dataclass(frozen=True, slots=True)
class Record:
    """What was simulated. resamples: of each bootstrap."""

    circumstances: Circumstances
    repetitions: int
    resamples: int
    cells: tuple[Cell, ...]


ROWS: dict[str, Callable[[Cell], bool]] = {
    "win rate, 2 or 4 samples a prompt": lambda cell: cell.figure == RAW and cell.samples > 1,
    "win rate, 1 sample": lambda cell: cell.figure == RAW and cell.samples == 1,
    "length-controlled, 2 or 4 samples": lambda cell: cell.figure == CONTROLLED and cell.samples > 1,
    "length-controlled, 1 sample": lambda cell: cell.figure == CONTROLLED and cell.samples == 1,
    "mean reward, normal or like VADER's": lambda cell: cell.figure == MEAN and cell.setting in USUAL,
    "change of such a reward": lambda cell: cell.figure == CHANGE and cell.setting in USUAL,
    "mean of right and wrong, 90% right": lambda cell: cell.figure == MEAN and cell.setting == BINARY,
    "change of right and wrong": lambda cell: cell.figure == CHANGE and cell.setting == BINARY,
    "mean reward, lognormal": lambda cell: cell.figure == MEAN and cell.setting == "lognormal",
    "change of a lognormal reward": lambda cell: cell.figure == CHANGE and cell.setting == "lognormal",
}
"""What the rows of the table on the page are drawn from."""


def table(record: Record) -> str:
    """The table of docs/win-rates.md: the lowest and the highest coverage of all settings of a row."""
    lines = [f"| | {' | '.join(f'{prompts} prompts' for prompts in PROMPTS)} |", f"|{' --- |' * (len(PROMPTS) + 1)}"]
    for name, belongs in ROWS.items():
        found = [[cell.covered for cell in record.cells if belongs(cell) and cell.prompts == n] for n in PROMPTS]
        spans = [f"{100 * min(shares):.1f} to {100 * max(shares):.1f}" for shares in found]
        lines.append(f"| {name} | {' | '.join(spans)} |")
    return "\n".join(lines) + "\n"


def coverage(intervals: list[Interval | None], truth: float) -> tuple[float, float]:
    """The share of experiments that gave an interval, and the share of these that held the truth."""
    given = [interval for interval in intervals if interval is not None]
    # A bound that is the truth itself, up to rounding, holds it.
    held = [low - 1e-9 <= truth <= high + 1e-9 for low, high in given]
    return len(given) / len(intervals), sum(held) / max(1, len(held))


def _interval(estimate: Estimate | None) -> Interval | None:
    return None if estimate is None else estimate.interval


def win_rates(repetitions: int) -> Iterator[Cell]:
    """Raw win rates."""
    generator = np.random.default_rng(1)
    for samples, zeros, rate in product(SAMPLES, (0.0, 0.2), (0.3, 0.5, 0.7, 0.9)):
        if rate > 0.85 and zeros:
            continue  # so many zeros leave no room for it
        population = gain_for(rate, samples, zeros=zeros)
        truth = true_win_rate(population)
        for prompts in PROMPTS:
            found = [mean_share(draw(population, prompts, generator).shares().tolist()) for _ in range(repetitions)]
            shares = coverage([estimate.interval for estimate in found], truth)
            yield Cell(RAW, f"{rate:.0%}, {zeros:.0%} zeros", samples, prompts, truth, 0.0, *shares)


def controlled_win_rates(repetitions: int) -> Iterator[Cell]:
    """Length-controlled win rates: with lengths that say nothing, that say all, that say some."""
    generator = np.random.default_rng(2)
    settings = {
        "50%, length without effect": (0.5, 0.0, 0.2, 0.0),
        "length alone": (None, 1.0, 0.2, 0.0),
        "70%, longer": (0.7, 0.5, 0.4, 0.0),
        "70%, longer, 20% zeros": (0.7, 0.5, 0.4, 0.2),
        "30%, longer": (0.3, 1.0, 0.2, 0.0),
        "90%, longer": (0.9, 0.5, 0.2, 0.0),
    }
    for samples, (name, (rate, by_length, longer, zeros)) in product(SAMPLES, settings.items()):
        population = (
            Population(samples, 0.0, by_length, longer, zeros)
            if rate is None
            else gain_for(rate, samples, by_length, longer, zeros)
        )
        truth, error = true_length_controlled(population, generator)
        for prompts in PROMPTS:
            found = [length_controlled(draw(population, prompts, generator).comparisons()) for _ in range(repetitions)]
            shares = coverage([_interval(each.estimate) for each in found], truth)
            yield Cell(CONTROLLED, name, samples, prompts, truth, error, *shares)


def rewards(repetitions: int, resamples: int) -> Iterator[Cell]:
    """Mean rewards, and their change from before to after, prompt by prompt."""
    generator = np.random.default_rng(3)
    for kind, samples in product(REWARDS, SAMPLES):
        large = mean_rewards(kind, LARGE // samples, samples, generator)
        truth, error, binary = float(large.mean()), float(large.std() / math.sqrt(len(large))), kind == BINARY
        for prompts in PROMPTS:
            drawn = [mean_rewards(kind, prompts, samples, generator).tolist() for _ in range(repetitions)]
            found = [mean_share(each) if binary else bootstrap_mean(each, resamples=resamples) for each in drawn]
            shares = coverage([estimate.interval for estimate in found], truth)
            yield Cell(MEAN, kind, samples, prompts, truth, error, *shares)


def changes(repetitions: int, resamples: int) -> Iterator[Cell]:
    """The change of the mean reward, by one half of the noise before the rewards are made of it."""
    generator, rise = np.random.default_rng(4), 0.5

    def change(kind: str, prompts: int, samples: int) -> np.ndarray:
        level, noise = generator.normal(0, LEVEL, (prompts, 1)), generator.normal(0, 0.8, (2, prompts, samples))
        gain = generator.normal(rise, 0.3, (prompts, 1))
        before, after = REWARDS[kind](level + noise[0]), REWARDS[kind](level + gain + noise[1])
        found: np.ndarray = after.mean(axis=1) - before.mean(axis=1)
        return found

    for kind, samples in product(REWARDS, SAMPLES):
        large = change(kind, LARGE // samples, samples)
        truth, error, binary = float(large.mean()), float(large.std() / math.sqrt(len(large))), kind == BINARY
        for prompts in PROMPTS:
            drawn = [change(kind, prompts, samples).tolist() for _ in range(repetitions)]
            found = [
                mean_change_of_share(each) if binary else bootstrap_mean(each, resamples=resamples) for each in drawn
            ]
            shares = coverage([estimate.interval for estimate in found], truth)
            yield Cell(CHANGE, kind, samples, prompts, truth, error, *shares)


def main(repetitions: int = 4000, resamples: int = 2000, out: Path = RESULTS / "coverage.json") -> None:
    """Simulates all settings and writes the table.

    Args:
        repetitions: experiments in each setting; of 4000, a share of 95% has a standard error of 0.34 points.
        resamples: of each bootstrap.
        out: where the table goes.
    """
    around, cells = circumstances("float64"), []
    for cell in chain(
        win_rates(repetitions),
        controlled_win_rates(repetitions),
        rewards(repetitions, resamples),
        changes(repetitions, resamples),
    ):
        print(
            f"{cell.figure:28}{cell.setting:28}{cell.samples} x {cell.prompts:<5}{cell.truth:8.3f}"
            f"{cell.given:8.1%}{cell.covered:8.1%}"
        )
        cells.append(cell)
    record = Record(around, repetitions, resamples, tuple(cells))
    write_record(record, out)
    print(table(record))


if __name__ == "__main__":
    tyro.cli(main)
