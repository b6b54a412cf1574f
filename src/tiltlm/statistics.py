"""Intervals for the figures that are reported: plain, and honest about small numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tiltlm.runs.records import Estimate

Z_95 = 1.959964
"""Two-sided 95% quantile of the normal distribution."""


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """95% Wilson score interval of a proportion; it stays sensible near 0 and 1 and for few trials.

    Source: E. B. Wilson, JASA 22 (1927) 209-212. Half successes (ties) are allowed. No trials: (0, 1).
    """
    if trials == 0:
        return 0.0, 1.0
    p, z2 = successes / trials, Z_95**2
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z_95 / (1 + z2 / trials) * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_mean(values: Sequence[float], seed: int = 0, resamples: int = 10_000) -> Estimate:
    """Mean of independent values (one per prompt) with its 95% percentile bootstrap interval; None for one value.

    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("the mean of nothing is not defined")
    if len(values) == 1:
        return Estimate(float(values[0]), None)
    data = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(data), (resamples, len(data)))
    low, high = np.quantile(data[draws].mean(axis=1), [0.025, 0.975])
    return Estimate(float(data.mean()), (float(low), float(high)))


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of the mean of independent values; None for fewer than two."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def clustered_mean(values: Sequence[float], clusters: Sequence[object]) -> Estimate:
    """Mean of values that come in clusters (pairs of one prompt)."""
    return bootstrap_mean(values)
