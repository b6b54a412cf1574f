"""Intervals for the figures that are reported: plain, and honest about small numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from tiltlm.runs.estimates import Estimate

Z_95 = 1.959964
"""Two-sided 95% quantile of the normal distribution."""
STUDIED_FROM = 16
"""Prompts, of two samples and more each, from which on 93% to 97% of the intervals of win rates and mean rewards held
the truth in simulated studies: docs/win-rates.md."""
DRAWN_AT_ONCE = 2**20
"""Values that a bootstrap draws together, which bounds its memory."""


def wilson_interval(successes: float, trials: float) -> tuple[float, float]:
    """95% Wilson score interval of a proportion; it stays sensible near 0 and 1 and for few trials.

    Source: E. B. Wilson, JASA 22 (1927) 209-212. Half successes (ties) are allowed, and so is an effective number of
    trials that is not whole. No trials: (0, 1).
    """
    if trials == 0:
        return 0.0, 1.0
    return _score_interval(successes / trials, trials, Z_95)


def _score_interval(p: float, trials: float, z: float) -> tuple[float, float]:
    """The proportions that a score test does not reject, z standard deviations being allowed."""
    z2 = z**2
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = z / (1 + z2 / trials) * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def effective_number(clusters: Sequence[int] | np.ndarray) -> float:
    """How many independent values the values of these clusters are worth, if those of one cluster all say the same.

    (sum of sizes)^2 / sum of squared sizes: the number of values where each is a cluster of its own, the number of
    clusters where all are of one size, less where a few are larger than the rest. Repeating every value k times leaves
    it as it was. Intervals made with it are too wide, never too narrow, where the values of a cluster differ.

    Source: L. Kish, Survey Sampling (1965), chapter 5: the design effect of clusters, at intraclass correlation 1.

    Args:
        clusters: of each value, the cluster that it belongs to.
    """
    sizes = np.unique(np.asarray(clusters), return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if len(sizes) else 0.0


def student_95(freedom: int) -> float:
    """Two-sided 95% quantile of Student's distribution, to 1% from two degrees of freedom on.

    Source: M. Abramowitz, I. Stegun, Handbook of Mathematical Functions (1964), 26.7.5: an expansion around the normal.
    """
    z, n = Z_95, float(freedom)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / n**power for power, term in enumerate(terms, start=1))


def mean_share(shares: Sequence[float]) -> Estimate:
    """Mean of independent shares in [0, 1] (one per prompt) with its 95% score interval; None for one share.

    See `clustered_share`. Its coverage: docs/win-rates.md.

    Raises:
        ValueError: there are no shares.
    """
    return clustered_share(shares, range(len(shares)))


def clustered_share(shares: Sequence[float], clusters: Sequence[int]) -> Estimate:
    """Mean of shares in [0, 1], of which those of one cluster (pairs of one prompt) may depend on each other, with its
    95% score interval; None where there is but one cluster.

    Wilson's interval with as many trials as would give the mean the variance that it is seen to have between clusters,
    and Student's quantile for the normal one: it stays within [0, 1], is the mirror image for the shares of losses, and
    covers where shares are near 0 or 1 and their bootstrap interval would be too narrow. Where no variance is seen,
    there are as many trials as `effective_number` says.

    Source: N. Dean, M. Pagano, Journal of Survey Statistics and Methodology 3 (2015) 484-503; the effective number of
    trials: E. L. Korn, B. I. Graubard, Survey Methodology 24 (1998) 193-201; the variance of the ratio of two sums over
    clusters: W. G. Cochran, Sampling Techniques (1977), section 9A.

    Args:
        clusters: of each share, the cluster that it belongs to.

    Raises:
        ValueError: there are no shares.
    """
    if not len(shares):
        raise ValueError("the mean of nothing is not defined")
    mean = float(np.mean(shares))
    sums_C2 = cluster_sums(np.stack([np.asarray(shares, dtype=np.float64), np.ones(len(shares))], 1), clusters)
    count = len(sums_C2)
    if count == 1:
        return Estimate(mean, None, 1)
    residuals_C = sums_C2[:, 0] - mean * sums_C2[:, 1]
    variance = float(residuals_C @ residuals_C) * count / (count - 1) / len(shares) ** 2
    # Equal shares that no float holds, as thirds, differ from their mean by its rounding.
    trials = mean * (1 - mean) / variance if variance > 1e-20 else effective_number(clusters)
    return Estimate(mean, _score_interval(mean, trials, student_95(count - 1)), count)


def mean_change_of_share(changes: Sequence[float]) -> Estimate:
    """Mean of independent changes of a share, each in [-1, 1] (one per prompt); the interval as by `mean_share`.

    A change d is the share (1 + d) / 2 on another scale: of answers that are right or wrong, one of each model to a
    prompt, it is the win rate.

    Raises:
        ValueError: there are no changes.
    """
    share = mean_share([(1 + change) / 2 for change in changes])
    interval = None if share.interval is None else (2 * share.interval[0] - 1, 2 * share.interval[1] - 1)
    return Estimate(2 * share.mean - 1, interval, share.clusters)


def bootstrap_mean(values: Sequence[float], seed: int = 0, resamples: int = 10_000) -> Estimate:
    """Mean of independent values (one per prompt) with its 95% bootstrap interval; None for one value.

    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. See `clustered_mean`.

    Raises:
        ValueError: there are no values.
    """
    return clustered_mean(values, range(len(values)), seed, resamples)


def clustered_mean(
    values: Sequence[float], clusters: Sequence[int], seed: int = 0, resamples: int = 10_000
) -> Estimate:
    """Mean of values of which those of one cluster (pairs of one prompt) may depend on each other.

    The 95% bootstrap interval draws whole clusters; None where there is but one. Percentiles are expanded, as those of
    few values would be too near to each other.

    Args:
        clusters: of each value, the cluster that it belongs to.

    Source: A. C. Davison, D. V. Hinkley, Bootstrap Methods and their Application (1997), section 3.8; why clusters:
    E. Miller, arXiv 2411.00640, section 2.2; expanded percentiles: T. Hesterberg, arXiv 1411.5279.

    Raises:
        ValueError: there are no values.
    """
    resampled = _Resampled(values, clusters, np.random.default_rng(seed), resamples)
    return expanded_interval(resampled.mean, resampled.means, resampled.clusters)


def difference_of_means(
    one: Sequence[float],
    clusters_one: Sequence[int],
    other: Sequence[float],
    clusters_other: Sequence[int],
    resamples: int = 10_000,
) -> Estimate:
    """The mean of one set of values less that of another, of other prompts; the interval as by `clustered_mean`.

    Raises:
        ValueError: one of them is empty.
    """
    generator = np.random.default_rng(0)
    first, second = (
        _Resampled(values, clusters, generator, resamples)
        for values, clusters in ((one, clusters_one), (other, clusters_other))
    )
    fewest = min(first.clusters, second.clusters)
    return expanded_interval(first.mean - second.mean, first.means - second.means, fewest)


class _Resampled:
    """The mean of values, and the means of so many samples of their clusters; none where there is but one."""

    def __init__(
        self, values: Sequence[float], clusters: Sequence[int], generator: np.random.Generator, resamples: int
    ) -> None:
        if not len(values):
            raise ValueError("the mean of nothing is not defined")
        _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
        sums = np.bincount(cluster, weights=np.asarray(values, dtype=np.float64))
        sizes = np.bincount(cluster).astype(np.float64)
        self.mean, self.clusters = float(sums.sum() / sizes.sum()), len(sums)
        means, rows = [], max(1, DRAWN_AT_ONCE // len(sums))
        for start in range(0, resamples, rows):
            draws = generator.integers(0, len(sums), (min(rows, resamples - start), len(sums)))
            means.append(sums[draws].sum(axis=1) / sizes[draws].sum(axis=1))
        self.means = np.concatenate(means)


def expanded_interval(mean: float, resampled: np.ndarray, clusters: int) -> Estimate:
    """A figure with the 95% interval that its values in resamples of the clusters span; None of one cluster.

    Percentiles are expanded, as those of few clusters would be too near to each other.

    Source: T. Hesterberg, arXiv 1411.5279.
    """
    if clusters == 1:
        return Estimate(mean, None, 1)
    below = NormalDist().cdf(-math.sqrt(clusters / (clusters - 1)) * student_95(clusters - 1))
    low, high = np.quantile(resampled, [below, 1 - below])
    return Estimate(mean, (float(low), float(high)), clusters)


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of the mean of independent values; None for fewer than two."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def clustered_means(values_NK: np.ndarray, clusters: Sequence[int], resamples: int = 10_000) -> list[Estimate]:
    """`clustered_mean` of each column of values with the same clusters, by the same draws for all columns.

    Args:
        values_NK: N values of each of K figures.
        clusters: of each of the N, the cluster that it belongs to.
    """
    sums_CK, sizes = cluster_sums(values_NK, clusters), _sizes(clusters)
    count, generator = len(sizes), np.random.default_rng(0)
    rows, means = max(1, DRAWN_AT_ONCE // count), []
    for start in range(0, resamples, rows):
        drawn = generator.multinomial(count, np.full(count, 1 / count), min(rows, resamples - start))
        means.append(drawn @ sums_CK / (drawn @ sizes)[:, None])
    whole_RK = np.concatenate(means)
    found = sums_CK.sum(0) / sizes.sum()
    return [expanded_interval(float(mean), whole_RK[:, place], count) for place, mean in enumerate(found)]


def sign_flip_p_values(differences_NK: np.ndarray, clusters: Sequence[int], flips: int = 20_000) -> np.ndarray:
    """Two-sided p-values, shape (K,), of the hypothesis that a paired difference is nothing but chance: that the two
    that are compared could be exchanged, prompt by prompt.

    The sum is compared with those under random signs of whole clusters; at least 1 / (flips + 1).

    Source: E. W. Noreen, Computer-Intensive Methods for Testing Hypotheses (1989), chapter 2; why one is added:
    B. Phipson, G. K. Smyth, Statistical Applications in Genetics and Molecular Biology 9 (2010), 39.

    Args:
        differences_NK: N paired differences of each of K comparisons.
        clusters: of each of the N, the cluster that it belongs to.
    """
    sums_CK = cluster_sums(differences_NK, clusters)
    # What differs by rounding alone is a tie: sums of the same numbers in another order.
    least_K = np.abs(sums_CK.sum(0)) * (1 - 1e-12) - 1e-300
    generator, count = np.random.default_rng(0), len(sums_CK)
    rows, as_large_K = max(1, DRAWN_AT_ONCE // count), np.ones(sums_CK.shape[1])
    for start in range(0, flips, rows):
        signs = generator.integers(0, 2, (min(rows, flips - start), count)) * 2.0 - 1.0
        as_large_K += (np.abs(signs @ sums_CK) >= least_K).sum(0)
    found: np.ndarray = as_large_K / (flips + 1)
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, adjusted so that one below 0.05 is wrong anywhere among them in at most 5% of cases.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = largest
    return adjusted


def cluster_sums(values_NK: np.ndarray, clusters: Sequence[int] | np.ndarray) -> np.ndarray:
    """The sum of each column over each cluster, shape (C, K), in the order of the clusters' numbers."""
    _, cluster_N = np.unique(np.asarray(clusters), return_inverse=True)
    sums_CK = np.zeros((int(cluster_N.max()) + 1 if len(cluster_N) else 0, values_NK.shape[1]))
    np.add.at(sums_CK, cluster_N, values_NK)
    return sums_CK


def _sizes(clusters: Sequence[int]) -> np.ndarray:
    """How many values each cluster has, shape (C,)."""
    return np.unique(np.asarray(clusters), return_counts=True)[1].astype(np.float64)
