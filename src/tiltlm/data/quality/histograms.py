"""Lengths in tokens as histograms that share their bins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tiltlm.data.quality.parts import Part, label_name
from tiltlm.objectives.interface import CHOSEN, REJECTED
from tiltlm.runs.data_account import TokenHistogram, TokenHistograms

MOST_BINS = 24


def token_histograms(parts: Sequence[Part]) -> TokenHistograms | None:
    """Of every split and part, as trained on: after cutting; a completion with its end-of-sequence token."""
    lengths = [(part.split, *one) for part in parts if len(part.columns) for one in _lengths(part)]
    if not lengths:
        return None
    edges = bin_edges(max(int(values.max()) for *_, values in lengths))
    return TokenHistograms(
        edges,
        tuple(
            TokenHistogram(split, name, tuple(np.histogram(values, edges)[0].tolist()))
            for split, name, values in lengths
        ),
    )


def _lengths(part: Part) -> list[tuple[str, np.ndarray]]:
    columns = part.columns
    found = [("prompt", columns.first_scored[columns.members[:-1]])]
    found += [(label_name(label), columns.scored_tokens[columns.labels == label]) for label in (CHOSEN, REJECTED)]
    return [(name, values) for name, values in found if len(values)]


def bin_edges(longest: int) -> tuple[int, ...]:
    """From 0 to beyond the longest, in steps of 1, 2 or 5 times a power of ten, MOST_BINS at most."""
    wanted = (longest + 1) / MOST_BINS
    scale = 10 ** max(0, len(str(int(wanted))) - 1)
    step = next(factor * scale for factor in (1, 2, 5, 10) if factor * scale >= wanted)
    # The last edge belongs to the last bin of numpy's histograms, so it lies above the longest.
    return tuple(range(0, longest + step + 1, step))
