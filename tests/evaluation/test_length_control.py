"""The length-controlled win rate, against closed forms, a search without derivatives, and what must not change it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltlm.evaluation import length_control
from tiltlm.evaluation.length_control import LengthControlled, length_controlled
from tiltlm.evaluation.win_rates import Comparisons
from tiltlm.statistics import student_95


def compared(*rows: tuple[int, float, float]) -> Comparisons:
    """Comparisons from (prompt, difference of lengths, win)."""
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Comparisons(columns[2].astype(float), columns[1].astype(float), columns[0])


def drawn(rng: np.random.Generator, prompts: int, theta: float, phi: float, pairs: int = 4) -> Comparisons:
    """Comparisons whose wins are drawn from the regression itself, some of them made ties."""
    longer = np.round(rng.normal(5, 20, prompts * pairs))
    chance = 1 / (1 + np.exp(-theta - phi * np.tanh(longer / 20)))
    wins = (rng.random(len(chance)) < chance).astype(float)
    return Comparisons(wins, longer, np.repeat(np.arange(prompts), pairs))


def rate(found: LengthControlled) -> float:
    assert found.estimate is not None, found.why
    return found.estimate.mean


def test_two_differences_of_lengths_by_hand() -> None:
    """With two values of the feature the fit goes through both shares: theta is the mean of their log-odds."""
    longer = [(prompt, 10.0, float(prompt > 1)) for prompt in range(8)]  # three of four
    shorter = [(prompt, -10.0, float(prompt < 4)) for prompt in range(8)]  # two of four
    found = length_controlled(compared(*longer, *shorter))
    assert rate(found) == pytest.approx(1 / (1 + math.exp(-math.log(3) / 2)))
    # The features are tanh(+-1), as the standard deviation of +-10 is 10.
    assert found.slope == pytest.approx(math.log(3) / 2 / math.tanh(1))


def test_ties_are_half_a_win_and_half_a_loss() -> None:
    tied = [(prompt, sign * 10.0, 0.5) for prompt in range(2, 4) for sign in (1, -1)]
    split = [(prompt, sign * 10.0, won) for prompt in range(2, 4) for sign in (1, -1) for won in (0.0, 1.0)]
    first = [
        (prompt, sign * 10.0, won) for prompt in range(2) for sign, won in ((1, 1.0), (-1, 0.0), (1, 0.0), (1, 1.0))
    ]
    once, often = length_controlled(compared(*first, *tied)), length_controlled(compared(*first, *split))
    assert rate(once) == pytest.approx(rate(often)) and once.slope == pytest.approx(often.slope)


def searched(of: Comparisons) -> tuple[float, float]:
    """The maximum of the likelihood, written out as a sum, by a grid that narrows: no derivative is taken."""
    count = np.bincount(of.prompts)
    weight = [1 / count[prompt] for prompt in of.prompts]
    mean = sum(w * d for w, d in zip(weight, of.longer, strict=True)) / sum(weight)
    spread = math.sqrt(sum(w * (d - mean) ** 2 for w, d in zip(weight, of.longer, strict=True)) / sum(weight))
    x = np.tanh(of.longer / spread)

    def likelihood(theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
        total: Any = 0.0
        for w, feature, won in zip(weight, x, of.wins, strict=True):
            odds = theta + phi * feature
            total = total + w * (won * -np.log1p(np.exp(-odds)) + (1 - won) * -np.log1p(np.exp(odds)))
        return np.asarray(total)

    centre, width = (0.0, 0.0), 8.0
    while width > 1e-7:
        steps = np.linspace(-width, width, 21)
        theta, phi = np.meshgrid(centre[0] + steps, centre[1] + steps, indexing="ij")
        best = np.unravel_index(likelihood(theta, phi).argmax(), theta.shape)
        centre, width = (float(theta[best]), float(phi[best])), width / 3
    return centre


@pytest.mark.parametrize("seed", range(6))
def test_the_fit_is_where_a_search_finds_the_maximum(seed: int) -> None:
    of = drawn(np.random.default_rng(seed), 20, theta=0.5, phi=seed / 2 - 1)
    of.wins[::7] = 0.5
    found = length_controlled(of)
    theta, phi = searched(of)
    assert found.slope == pytest.approx(phi, abs=1e-4)
    assert rate(found) == pytest.approx(1 / (1 + math.exp(-theta)), abs=1e-5)


def without(of: Comparisons, prompt: int) -> Comparisons:
    kept = of.prompts != prompt
    return Comparisons(of.wins[kept], of.longer[kept], of.prompts[kept] - (of.prompts[kept] > prompt))


@pytest.mark.parametrize("prompts", [20, 60])
def test_the_interval_is_that_of_leaving_out_one_prompt_at_a_time(prompts: int) -> None:
    """Each left out in earnest and fitted again, s included: nearly the same, as the one step is of first order."""
    of = drawn(np.random.default_rng(prompts), prompts, theta=0.5, phi=1.0)
    found = length_controlled(of)
    theta = _odds(rate(found))
    again = np.array([_odds(rate(length_controlled(without(of, prompt)))) for prompt in range(prompts)])
    half = student_95(prompts - 1) * math.sqrt((prompts - 1) / prompts * float(np.sum((again - theta) ** 2)))
    assert found.estimate is not None and found.estimate.interval is not None
    low, high = (_odds(bound) for bound in found.estimate.interval)
    assert (low, high) == pytest.approx((theta - half, theta + half), abs=0.15 * half)
    assert found.estimate.clusters == prompts and (low + high) / 2 == pytest.approx(theta)


def _odds(share: float) -> float:
    return math.log(share / (1 - share))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 1000), st.integers(2, 4))
def test_what_must_not_change_it(seed: int, scale: float, times: int) -> None:
    rng = np.random.default_rng(seed)
    of = drawn(rng, 16, theta=float(rng.normal()), phi=float(rng.normal()))
    of.wins[rng.random(len(of.wins)) < 0.2] = 0.5
    found = length_controlled(of)
    # The unit of lengths; the order; every comparison made several times.
    order = rng.permutation(len(of.wins))
    for same in (
        Comparisons(of.wins, of.longer * scale, of.prompts),
        Comparisons(of.wins[order], of.longer[order], of.prompts[order]),
        Comparisons(np.tile(of.wins, times), np.tile(of.longer, times), np.tile(of.prompts, times)),
    ):
        assert_like(length_controlled(same), found, mirrored=False)
    # The models exchanged: wins are losses, longer is shorter, and longer answers win as often as before.
    assert_like(length_controlled(Comparisons(1 - of.wins, -of.longer, of.prompts)), found, mirrored=True)


def assert_like(one: LengthControlled, other: LengthControlled, mirrored: bool) -> None:
    assert (one.estimate is None) == (other.estimate is None)
    if one.estimate is None or other.estimate is None:
        assert mirrored or one.why == other.why
        return
    assert one.estimate.interval is not None and other.estimate.interval is not None
    mean, (low, high) = other.estimate.mean, other.estimate.interval
    expected = (1 - mean, 1 - high, 1 - low) if mirrored else (mean, low, high)
    assert (one.estimate.mean, *one.estimate.interval) == pytest.approx(expected, abs=1e-6)
    assert one.slope == pytest.approx(other.slope, rel=1e-4, abs=1e-6)


def test_where_lengths_have_no_say_it_is_the_raw_rate() -> None:
    of = drawn(np.random.default_rng(0), 20_000, theta=0.7, phi=0.0)
    found = length_controlled(of)
    assert rate(found) == pytest.approx(of.wins.mean(), abs=0.005) and found.slope == pytest.approx(0, abs=0.05)


def test_where_length_alone_decides_it_is_one_half() -> None:
    of = drawn(np.random.default_rng(1), 20_000, theta=0.0, phi=2.0)
    assert of.wins.mean() > 0.55  # new answers are longer, and so win
    assert rate(length_controlled(of)) == pytest.approx(0.5, abs=0.01)


WITHHELD = {
    "all of one length": (((0, 0, 1.0), (1, 0, 0.0), (2, 0, 1.0)), "all of one length"),
    "one difference": (((0, 7, 1.0), (1, 7, 0.0), (2, 7, 1.0)), "differs from the old one by the same length"),
    "always longer": (((0, 7, 1.0), (1, 2, 0.0), (2, 3, 1.0), (2, 9, 0.0)), "every new answer is longer"),
    "always shorter": (((0, -7, 1.0), (1, -2, 0.0), (2, -3, 1.0), (2, -9, 0.0)), "every new answer is shorter"),
    "all won": (((0, 7, 1.0), (1, -2, 1.0)), "every comparison is won"),
    "all lost": (((0, 7, 0.0), (1, -2, 0.0)), "every comparison is lost"),
    "all ties": (((0, 7, 0.5), (1, -2, 0.5)), "every comparison is a tie"),
    "the longer one wins": (((0, 7, 1.0), (1, -2, 0.0), (2, 0, 0.5), (2, 3, 1.0)), "length alone tells"),
    "the shorter one wins": (((0, 7, 0.0), (1, -2, 1.0), (2, 3, 0.0)), "length alone tells"),
    "touching": (((0, 7, 1.0), (1, -2, 0.0), (2, 3, 0.0), (2, 3, 1.0)), "length alone tells"),
    "one prompt": (((0, 7, 1.0), (0, 7, 0.0), (0, -2, 0.0), (0, -2, 1.0)), "one prompt has no spread"),
    "every prompt alike": (
        tuple((prompt, longer, won) for prompt in range(3) for longer in (-5, 5) for won in (0.0, 1.0)),
        "every prompt says the same",
    ),
    "one exception": (((0, 7, 1.0), (1, -2, 0.0), (2, 9, 0.0), (3, -4, 0.0), (4, 8, 1.0)), "hangs on a single prompt"),
}


@pytest.mark.parametrize("name", WITHHELD)
def test_what_cannot_be_told_is_withheld_with_its_reason(name: str) -> None:
    rows, words = WITHHELD[name]
    found = length_controlled(compared(*rows))
    assert found.estimate is None and found.slope is None
    assert found.why is not None and words in found.why


def test_a_fit_that_does_not_end_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(length_control, "STEPS", 1)
    found = length_controlled(drawn(np.random.default_rng(2), 20, 0.5, 1.0))
    assert found.estimate is None and found.why is not None and "did not converge" in found.why


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(-3, 3), st.sampled_from([0.0, 0.5, 1.0])), min_size=2, max_size=14
    )
)
def test_hardly_any_comparisons_give_a_figure_or_a_reason(rows: list[tuple[int, int, float]]) -> None:
    """Whatever is given, nothing fails, and what is found is finite."""
    numbers = {prompt: number for number, prompt in enumerate(sorted({prompt for prompt, _, _ in rows}))}
    found = length_controlled(compared(*((numbers[prompt], longer, won) for prompt, longer, won in rows)))
    assert (found.estimate is None) == (found.why is not None) == (found.slope is None)
    if found.estimate is not None:
        assert found.estimate.interval is not None
        low, high = found.estimate.interval
        assert 0 <= low <= found.estimate.mean <= high <= 1
