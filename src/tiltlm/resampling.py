"""Intervals of figures that are no means: ratios, and whatever else is made of sums over prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tiltlm.runs.estimates import Estimate
from tiltlm.statistics import cluster_sums, expanded_interval

RESAMPLES = 2000
"""Bootstrap samples: the ends of a 95% interval are then themselves known to a twentieth of its width."""


def of_sums(
    sums_CK: np.ndarray, figure: Callable[[np.ndarray], np.ndarray], seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """A figure that is a function of sums over clusters, with its 95% bootstrap interval; None of one cluster.

    The bootstrap draws whole clusters; percentiles are expanded, as in `statistics.clustered_mean`.

    Args:
        sums_CK: of each cluster its share of each of the K sums.
        figure: of sums, shape (R, K), the figure, shape (R,).

    Raises:
        ValueError: there are no clusters.
    """
    clusters = len(sums_CK)
    if not clusters:
        raise ValueError("a figure of nothing is not defined")
    found = float(figure(sums_CK.sum(0)[None])[0])
    drawn = np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), resamples)
    return expanded_interval(found, figure(drawn @ sums_CK), clusters)


def ratio(sums_R2: np.ndarray) -> np.ndarray:
    """Of two sums the first over the second; nought over nought is one."""
    above, under = sums_R2[:, 0], sums_R2[:, 1]
    found: np.ndarray = np.divide(above, under, out=np.ones_like(above), where=under > 0)
    return found


def effective_share(log_weights: Sequence[float] | np.ndarray, clusters: Sequence[int] | np.ndarray) -> Estimate:
    """(sum w)^2 / (N sum w^2): as which share of N equal weights these weights count; at least 1/N.

    A small share is a warning, a large one proves little: from few weights the rare large ones are missing
    (theory.pdf, Proposition 19 (effective)).

    Args:
        log_weights: logarithms of N weights. clusters: of each, the cluster (prompt) that it belongs to.

    Raises:
        ValueError: there are no weights.
    """
    log_N = np.asarray(log_weights, dtype=np.float64)
    weights = np.exp(log_N - log_N.max()) if len(log_N) else log_N
    sums_CK = cluster_sums(np.stack([weights, weights**2, np.ones_like(weights)], 1), clusters)
    return of_sums(sums_CK, lambda sums: sums[:, 0] ** 2 / np.maximum(sums[:, 1] * sums[:, 2], 1e-300))
