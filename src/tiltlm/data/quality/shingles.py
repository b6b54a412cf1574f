"""Texts as sets of short pieces (shingles), by which they can be compared: sorted arrays of 64-bit hashes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tiltlm.data.tokens.token_columns import bounds_of, ranges

LENGTH = 5
"""Characters of a piece."""
COMMON, COMMON_AT_LEAST = 0.25, 20
"""A piece is common to the prompts, as a template's words are, where more than this share of them, and as many at
least, have it."""
SAMPLED = 2000
"""Most prompts by which it is told what is common."""

# An odd multiplier of 64 bits, and those of the mixing step of splitmix64.
_BASE = 0x9E3779B97F4A7C15
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Shingler:
    """Cuts texts into pieces, leaving out those that are common to the given ones.

    Two texts are compared as they read: letters of both sizes are the same, and so is all white space. A shorter text
    is one piece.

    Args:
        texts: those of which some are sampled evenly, in several parts.
    """

    def __init__(self, *texts: Sequence[str]) -> None:
        self._common = np.empty(0, dtype=np.uint64)
        bounds = bounds_of([len(part) for part in texts])
        if not bounds[-1]:
            return
        sample = np.unique(np.linspace(0, bounds[-1] - 1, min(SAMPLED, bounds[-1])).astype(np.int64))
        parts = np.searchsorted(bounds, sample, side="right") - 1
        places = zip(parts.tolist(), (sample - bounds[parts]).tolist(), strict=True)
        hashes, bounds = self([texts[part][place] for part, place in places])
        own = np.repeat(np.arange(len(sample)), np.diff(bounds))
        order = np.lexsort((hashes, own))
        hashes, own = hashes[order], own[order]
        new = np.ones(len(hashes), dtype=bool)
        new[1:] = (hashes[1:] != hashes[:-1]) | (own[1:] != own[:-1])
        different, texts_with = np.unique(hashes[new], return_counts=True)
        self._common = different[texts_with > max(COMMON * len(sample), COMMON_AT_LEAST - 1)]

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of the texts' pieces, a text's own in their order with repeats, and where each text's begin.

        Returns:
            uint64 hashes of shape (pieces,), and int64 bounds of shape (texts + 1,).
        """
        as_read = [" ".join(text.lower().split()).ljust(LENGTH, "\0") for text in texts]
        if not as_read:
            return np.empty(0, dtype=np.uint64), bounds_of([])
        codes = np.frombuffer("".join(as_read).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
        windows = len(codes) - LENGTH + 1
        hashes = np.zeros(windows, dtype=np.uint64)
        for place in range(LENGTH):
            hashes *= np.uint64(_BASE)
            hashes += codes[place : place + windows] + np.uint64(1)
        for shift, factor in zip((30, 27), _MIX, strict=True):
            hashes ^= hashes >> np.uint64(shift)
            hashes *= factor
        hashes ^= hashes >> np.uint64(31)
        lengths = np.array([len(text) for text in as_read], dtype=np.int64)
        starts, counts = bounds_of(lengths)[:-1], lengths - LENGTH + 1
        hashes, bounds = hashes[ranges(starts, counts)], bounds_of(counts)
        if not len(self._common):
            return hashes, bounds
        place = np.minimum(np.searchsorted(self._common, hashes), len(self._common) - 1)
        kept = self._common[place] != hashes
        return hashes[kept], np.concatenate([[0], np.cumsum(kept)])[bounds]

    def pieces(self, text: str) -> np.ndarray:
        """The set of a text's pieces, sorted."""
        return np.unique(self([text])[0])


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Of the pieces that either of two sorted sets has, the share that both have; 0 of two empty ones."""
    both = len(np.intersect1d(first, second, assume_unique=True))
    either = len(first) + len(second) - both
    return both / either if either else 0.0
