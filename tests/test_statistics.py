"""Intervals, against published values, their defining equations, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltlm.statistics import (
    Z_95,
    bootstrap_mean,
    clustered_mean,
    difference_of_means,
    effective_number,
    mean_change_of_share,
    mean_share,
    standard_error,
    student_95,
    wilson_interval,
)

# Successes may be halves.
counts = st.integers(1, 500).flatmap(
    lambda trials: st.tuples(st.integers(0, 2 * trials).map(lambda halves: halves / 2), st.just(trials))
)
samples = st.lists(st.floats(-100, 100), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        # R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_no_trials_say_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(counts)
def test_wilson_holds_the_proportion_and_is_one(count: tuple[float, int]) -> None:
    successes, trials = count
    low, high = wilson_interval(successes, trials)
    assert 0 <= low < high <= 1
    assert low <= successes / trials + 1e-12 and high >= successes / trials - 1e-12


@given(counts)
def test_wilson_bounds_are_where_the_score_test_rejects(count: tuple[float, int]) -> None:
    successes, trials = count
    for bound in wilson_interval(successes, trials):
        distance, deviation = successes / trials - bound, math.sqrt(max(0.0, bound * (1 - bound)) / trials)
        assert abs(distance) == pytest.approx(Z_95 * deviation, abs=1e-7)


@given(counts, st.integers(2, 20))
def test_wilson_narrows_with_more_trials(count: tuple[float, int], times: int) -> None:
    (low, high), (low_more, high_more) = (wilson_interval(count[0] * k, count[1] * k) for k in (1, times))
    assert high_more - low_more < high - low


@given(counts)
def test_wilson_treats_success_and_failure_alike(count: tuple[float, int]) -> None:
    low, high = wilson_interval(*count)
    mirrored = wilson_interval(count[1] - count[0], count[1])
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(samples, st.integers(0, 3))
def test_the_bootstrap_is_the_same_every_time_and_stays_within_the_data(values: list[float], seed: int) -> None:
    first, again = (bootstrap_mean(values, seed, resamples=200) for _ in range(2))
    assert first == again
    if len(values) == 1:
        assert first.interval is None
        return
    assert first.interval is not None
    low, high = first.interval
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert first.mean == pytest.approx(sum(values) / len(values), abs=1e-9)


def test_the_bootstrap_agrees_with_normal_theory_for_many_values() -> None:
    values = np.random.default_rng(1).exponential(2.0, 400)
    estimate = bootstrap_mean(values.tolist())
    error = standard_error(values.tolist())
    assert error is not None
    half = Z_95 * error
    assert estimate.interval == pytest.approx((estimate.mean - half, estimate.mean + half), abs=0.1 * half)


def test_the_bootstrap_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        interval = bootstrap_mean(rng.normal(3.0, 1.0, 40).tolist(), resamples=400).interval
        assert interval is not None
        covered += interval[0] <= 3.0 <= interval[1]
    # 285 expected; percentile intervals of 40 values run a little narrow.
    assert 270 <= covered <= 297


@pytest.mark.parametrize(
    ("freedom", "published"),
    # M. Abramowitz, I. Stegun, Handbook of Mathematical Functions (1964), table 26.10.
    [(2, 4.303), (3, 3.182), (5, 2.571), (7, 2.365), (10, 2.228), (30, 2.042), (120, 1.980), (10**9, 1.960)],
)
def test_students_quantile_against_published_values(freedom: int, published: float) -> None:
    assert student_95(freedom) == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("count", [8, 12, 20])
def test_of_few_values_that_show_nothing_no_more_than_one_in_twenty_seems_to_show_something(count: int) -> None:
    rng = np.random.default_rng(6)
    trials, plain, expanded = 600, 0, 0
    for _ in range(trials):
        values = rng.normal(0, 1, count)
        low, high = bootstrap_mean(values.tolist(), resamples=1000).interval or (0, 0)
        expanded += not low <= 0 <= high
        drawn = rng.choice(values, (1000, count)).mean(axis=1)
        plain += not np.quantile(drawn, 0.025) <= 0 <= np.quantile(drawn, 0.975)
    assert expanded <= 0.08 * trials, "one in twenty, and what chance adds in 600 trials"
    assert expanded < plain


def test_a_difference_of_means_by_hand_and_by_normal_theory() -> None:
    rng = np.random.default_rng(7)
    one, other = rng.normal(3, 1, 300), rng.normal(1, 2, 200)
    found = difference_of_means(one.tolist(), range(300), other.tolist(), range(200))
    assert found.mean == pytest.approx(one.mean() - other.mean())
    half = Z_95 * math.sqrt(one.var(ddof=1) / 300 + other.var(ddof=1) / 200)
    assert found.interval == pytest.approx((found.mean - half, found.mean + half), abs=0.1 * half)
    assert found.clusters == 200
    assert difference_of_means([1.0, 2.0], [0, 1], [5.0], [0]).interval is None


def test_the_mean_of_nothing_is_refused() -> None:
    for mean in (bootstrap_mean, mean_share, mean_change_of_share):
        with pytest.raises(ValueError, match="not defined"):
            mean([])


shares = st.lists(st.integers(0, 8).map(lambda eighths: eighths / 8), min_size=2, max_size=30)


@given(shares)
def test_the_bounds_of_a_mean_share_are_where_the_score_test_rejects(given_shares: list[float]) -> None:
    """At a bound, the mean is as far from it as Student's quantile allows, were the variance that of the bound."""
    found, count = mean_share(given_shares), len(given_shares)
    assert found.interval is not None and found.clusters == count
    # How much less the mean varies than that of as many single wins and losses; one, where nothing varies.
    variance = float(np.var(given_shares, ddof=1))
    less = variance / (found.mean * (1 - found.mean)) if variance > 0 else 1.0
    for bound in found.interval:
        deviation = math.sqrt(less * max(0.0, bound * (1 - bound)) / count)
        assert abs(found.mean - bound) == pytest.approx(student_95(count - 1) * deviation, abs=1e-7)


@given(shares)
def test_a_mean_share_holds_itself_and_mirrors(given_shares: list[float]) -> None:
    found, mirrored = mean_share(given_shares), mean_share([1 - share for share in given_shares])
    assert found.interval is not None and mirrored.interval is not None
    low, high = found.interval
    assert 0 <= low <= found.mean + 1e-12 and found.mean <= high + 1e-12 and low < high <= 1
    assert mirrored.interval == pytest.approx((1 - high, 1 - low), abs=1e-9)
    changes = mean_change_of_share([2 * share - 1 for share in given_shares])
    assert changes.interval == pytest.approx((2 * low - 1, 2 * high - 1), abs=1e-9)
    assert changes.mean == pytest.approx(2 * found.mean - 1, abs=1e-9)


def test_mean_shares_known_beforehand() -> None:
    # Wins and losses alone: Wilson's interval of as many trials less one, at Student's quantile.
    low, high = mean_share([1.0] * 60 + [0.0] * 40).interval or (0, 0)
    assert (low, high) == pytest.approx(wilson_interval(0.6 * 99, 99), abs=0.002)
    # All alike, in thirds too, which no float holds: as many trials as prompts.
    for share in (1.0, 1 / 3, 0.5):
        alike = mean_share([share] * 12).interval or (0, 0)
        low, high = wilson_interval(12 * share, 12)
        assert alike[0] < low + 1e-9 and alike[1] > high - 1e-9 and alike[0] > low - 0.1
    assert mean_share([0.25]).interval is None and mean_change_of_share([0.25]).interval is None


def test_standard_error() -> None:
    assert standard_error([1.0, 2.0, 3.0, 4.0]) == pytest.approx(math.sqrt(5 / 3) / 2)
    assert standard_error([2.5] * 4) == 0.0
    assert standard_error([2.5]) is standard_error([]) is None


clusters = st.lists(st.integers(0, 6), min_size=1, max_size=40)


@given(clusters, st.integers(1, 6))
def test_repeating_every_value_does_not_change_the_effective_number(given_clusters: list[int], times: int) -> None:
    number = effective_number(given_clusters)
    assert effective_number(given_clusters * times) == pytest.approx(number)
    assert 1 <= number <= len(set(given_clusters)) + 1e-9


def test_effective_numbers_known_beforehand() -> None:
    assert effective_number(range(17)) == 17  # all different: Wilson's interval as it is
    assert effective_number([0, 0, 0, 1, 1, 1]) == pytest.approx(2)
    assert effective_number([0] * 99 + [1]) == pytest.approx(100**2 / (99**2 + 1))
    assert effective_number([]) == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 9), st.integers(0, 6)), min_size=1, max_size=20), st.integers(1, 4))
def test_repeating_every_value_does_not_narrow_the_interval_of_a_mean(
    given_values: list[tuple[float, int]], times: int
) -> None:
    values, groups = [value for value, _ in given_values], [group for _, group in given_values]
    once = clustered_mean(values, groups, resamples=200)
    often = clustered_mean(values * times, groups * times, resamples=200)
    assert often.mean == pytest.approx(once.mean)
    assert (once.interval is None) == (often.interval is None) == (len(set(groups)) == 1)
    if once.interval is not None:
        assert often.interval == pytest.approx(once.interval, abs=1e-9)


def test_values_that_are_all_clusters_of_their_own_are_the_plain_bootstrap() -> None:
    values = np.random.default_rng(4).normal(size=30).tolist()
    assert clustered_mean(values, list(range(30))[::-1]).mean == pytest.approx(bootstrap_mean(values).mean)
    assert clustered_mean(values, range(30)) == bootstrap_mean(values)


def test_the_bootstrap_draws_the_same_whether_at_once_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).normal(size=30).tolist()
    whole = bootstrap_mean(values)
    monkeypatch.setattr("tiltlm.statistics.DRAWN_AT_ONCE", 1000)
    assert bootstrap_mean(values) == whole


@pytest.mark.parametrize("agreement", [1.0, 0.6])
def test_intervals_cover_where_prompts_repeat(agreement: float) -> None:
    """40 prompts with 1 to 8 pairs each, a share of which says what the prompt says."""
    rng, share, trials = np.random.default_rng(5), 0.7, 400
    covered = {"share": 0, "as if independent": 0, "mean": 0}
    for _ in range(trials):
        groups = np.repeat(np.arange(40), rng.integers(1, 9, 40))
        of_prompt, of_pair = rng.random(40)[groups] < share, rng.random(len(groups)) < share
        right = np.where(rng.random(len(groups)) < agreement, of_prompt, of_pair).astype(float)
        number = effective_number(groups.tolist())
        for name, (low, high) in {
            "share": wilson_interval(right.mean() * number, number),
            "as if independent": wilson_interval(right.sum(), len(right)),
            "mean": clustered_mean(right.tolist(), groups.tolist(), resamples=300).interval or (0, 0),
        }.items():
            covered[name] += low <= share <= high
    # The bootstrap of 40 clusters runs a little narrow.
    assert covered["share"] >= 0.94 * trials and covered["mean"] >= 0.90 * trials
    assert covered["as if independent"] <= 0.88 * trials
