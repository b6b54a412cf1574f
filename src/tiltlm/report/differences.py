"""Which members of a sweep differ by more than chance: paired over the same held-out examples."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tiltlm.report.sweep_figures import MemberFigures, right
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.held_out_pairs import HeldOutPair
from tiltlm.statistics import clustered_means, holm, sign_flip_p_values

LEVEL = 0.05
"""Chance of naming any difference that is none, over all comparisons of a sweep."""
FEWEST_FLIPS, MOST_FLIPS, FLIPS_PER_TEST = 20_000, 200_000, 400
"""Random signs for each comparison: the least p-value times their number is then well below the level."""
Measured = Mapping[str, tuple[int, float]]
"""A figure of single held-out examples: by the example's name its prompt's number and the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A figure of one member less that of another, by their numbers, over the examples that both have.

    estimate: the mean with its own 95% interval. adjusted: the p-value after Holm's correction over all comparisons.
    """

    figure: str
    one: int
    other: int
    estimate: Estimate
    adjusted: float

    @property
    def shown(self) -> bool:
        """Whether it is larger than chance would make it, anywhere among the comparisons."""
        return self.adjusted < LEVEL


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedFigure:
    """A figure that members are compared by. title: in a heading. unit: after a number.

    examples, prompts: over how many all its members were compared. members: their numbers.
    """

    name: str
    title: str
    unit: str
    members: tuple[int, ...]
    examples: int
    prompts: int

    @property
    def scale(self) -> float:
        """By what the figure is multiplied to be in its unit."""
        return 100.0 if self.unit == "percentage points" else 1.0


@dataclass(frozen=True, slots=True)
class Differences:
    """All comparisons of a sweep, corrected together."""

    figures: tuple[ComparedFigure, ...]
    differences: tuple[Difference, ...]

    def of(self, figure: str) -> list[Difference]:
        return [difference for difference in self.differences if difference.figure == figure]

    def between(self, figure: str, one: int, other: int) -> Difference | None:
        """The figure of one less that of the other; None where they were not compared."""
        for found in self.of(figure):
            if (found.one, found.other) == (one, other):
                return found
            if (found.one, found.other) == (other, one):
                return _turned(found)
        return None


def differences(members: list[MemberFigures]) -> Differences:
    """Compares every two members that came to their end by every figure that they have of the same examples."""
    figures, tested = [], []
    for name, (title, unit, measure) in FIGURES.items():
        by_member = {one.record.number: measure(one) for one in members if one.compared and measure(one)}
        common = _common(by_member)
        prompts = len({by_member[next(iter(by_member))][example][0] for example in common}) if common else 0
        if len(by_member) < 2 or prompts < 2:
            continue
        numbers = tuple(by_member)
        figures.append(
            ComparedFigure(name=name, title=title, unit=unit, members=numbers, examples=len(common), prompts=prompts)
        )
        tested.append((name, numbers, common, by_member))
    tests = sum(len(numbers) * (len(numbers) - 1) // 2 for _, numbers, _, _ in tested)
    found: list[tuple[str, int, int, Estimate, float]] = []
    flips = min(MOST_FLIPS, max(FEWEST_FLIPS, FLIPS_PER_TEST * tests))
    for name, numbers, common, by_member in tested:
        values = np.array([[by_member[number][example][1] for example in common] for number in numbers])
        clusters = [by_member[numbers[0]][example][0] for example in common]
        pairs = list(itertools.combinations(range(len(numbers)), 2))
        apart_NK = np.stack([values[one] - values[other] for one, other in pairs], axis=1)
        estimates = clustered_means(apart_NK, clusters)
        p_values = sign_flip_p_values(apart_NK, clusters, flips)
        for (one, other), estimate, p_value in zip(pairs, estimates, p_values.tolist(), strict=True):
            found.append((name, numbers[one], numbers[other], estimate, p_value))
    adjusted = holm([p_value for *_, p_value in found])
    return Differences(
        tuple(figures),
        tuple(
            Difference(figure=name, one=one, other=other, estimate=estimate, adjusted=p_value)
            for (name, one, other, estimate, _), p_value in zip(found, adjusted, strict=True)
        ),
    )


def _common(by_member: Mapping[int, Measured]) -> list[str]:
    """The examples that all members have, in order."""
    sets = [set(measured) for measured in by_member.values()]
    return sorted(set.intersection(*sets)) if sets else []


def _turned(difference: Difference) -> Difference:
    estimate = difference.estimate
    interval = None if estimate.interval is None else (0.0 - estimate.interval[1], 0.0 - estimate.interval[0])
    return Difference(
        figure=difference.figure,
        one=difference.other,
        other=difference.one,
        estimate=Estimate(0.0 - estimate.mean, interval, estimate.clusters),
        adjusted=difference.adjusted,
    )


def _accuracies(member: MemberFigures) -> Measured:
    return {name: (pair.prompt, right(pair)) for name, pair in _named(member.pairs)}


def _changes(member: MemberFigures) -> Measured:
    return {name: (pair.prompt, pair.change) for name, pair in _named(member.pairs)}


def _named(pairs: tuple[HeldOutPair, ...]) -> Iterator[tuple[str, HeldOutPair]]:
    """The pairs by their ids; pairs of one row, which have one id, are told apart by their order."""
    times: Counter[str] = Counter()
    for pair in pairs:
        times[pair.id] += 1
        yield f"{pair.id} {times[pair.id]}", pair


def _rewards(member: MemberFigures) -> Measured:
    """The mean known reward of the trained model's samples, by prompt."""
    if member.comparison is None or member.reward is None:
        return {}
    found: dict[str, tuple[int, float]] = {}
    for place, prompt in enumerate(member.comparison.prompts):
        rewards = [answer.reward for answer in prompt.after.samples if answer.reward is not None]
        if prompt.counted and rewards:
            found[prompt.id] = (place, sum(rewards) / len(rewards))
    return found


FIGURES: dict[str, tuple[str, str, Callable[[MemberFigures], Measured]]] = {
    "accuracy": ("Held-out accuracy", "percentage points", _accuracies),
    "change": ("Log-odds of chosen against rejected", "nats", _changes),
    "reward": ("Known reward of the answers", "", _rewards),
}
"""What members are compared by: heading, unit, and the figure of single examples."""
