"""Figures of sums over prompts, and what weights are worth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltlm.resampling import effective_share, of_sums, ratio
from tiltlm.statistics import cluster_sums, clustered_mean

LOGS = st.lists(st.floats(-20, 20), min_size=1, max_size=12)


@given(LOGS)
def test_the_effective_share_lies_between_one_of_many_and_one_and_ignores_a_common_factor(logs: list[float]) -> None:
    found = effective_share(logs, range(len(logs)))
    weights = np.exp(np.array(logs) - max(logs))
    assert found.mean == pytest.approx(weights.sum() ** 2 / (len(logs) * (weights**2).sum()))
    assert 1 / len(logs) - 1e-9 <= found.mean <= 1 + 1e-9
    assert effective_share([log + 500 for log in logs], range(len(logs))).mean == pytest.approx(found.mean)


def test_equal_weights_are_worth_all_of_them_and_one_that_is_large_only_itself() -> None:
    assert effective_share([3.0] * 8, range(8)).mean == pytest.approx(1)
    assert effective_share([0.0] * 7 + [90.0], range(8)).mean == pytest.approx(1 / 8)


def test_the_share_of_normal_weights_is_the_exponential_of_their_variance() -> None:
    # E[w]^2 / E[w^2] = exp(-s^2) of log-normal weights: theory.pdf, Proposition 19 (effective), with KL = s^2 / 2.
    found = effective_share(np.random.default_rng(0).normal(0, 0.7, 3_000), range(3_000))
    assert found.mean == pytest.approx(math.exp(-0.49), abs=0.04) and found.mean < math.exp(-0.49 / 2)
    assert found.interval is not None and found.interval[0] < math.exp(-0.49) < found.interval[1]


def test_a_mean_by_sums_has_the_interval_of_the_mean() -> None:
    rng = np.random.default_rng(1)
    values, clusters = rng.normal(size=60), np.repeat(range(20), 3)
    sums = cluster_sums(np.stack([values, np.ones(60)], 1), clusters)
    found, known = of_sums(sums, ratio, resamples=5_000), clustered_mean(values.tolist(), clusters.tolist())
    assert found.mean == pytest.approx(known.mean) and found.clusters == known.clusters == 20
    assert found.interval == pytest.approx(known.interval, abs=0.04)


def test_of_one_cluster_there_is_no_interval_and_of_none_no_figure() -> None:
    assert effective_share([1.0, 2.0], [5, 5]).interval is None
    with pytest.raises(ValueError, match="nothing"):
        effective_share([], [])
