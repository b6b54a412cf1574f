"""How much of an example's sequences is the same: what is laid out once, as a tree, and not once a sequence."""

from __future__ import annotations

import numpy as np

from tiltlm.data.tokens.token_columns import TokenColumns, portions, ranges
from tiltlm.objectives.interface import MISMATCHED


def tokens_laid_out(columns: TokenColumns) -> tuple[int, int]:
    """Tokens that the examples take with what their sequences share laid out once, and without sharing.

    The last token of a sequence predicts nothing, so it is not laid out. Mismatched sequences are not counted.
    """
    own = np.flatnonzero(columns.labels != MISMATCHED)
    example = np.repeat(np.arange(len(columns)), np.diff(columns.members))[own]
    own = _sorted_within(columns, own, example)
    starts, lengths = columns.bounds[own], np.diff(columns.bounds)[own] - 1
    neighbours = np.flatnonzero(example[1:] == example[:-1])
    shared = shared_starts(
        columns.ids, starts[neighbours], starts[neighbours + 1], np.minimum(lengths[:-1], lengths[1:])[neighbours]
    )
    total = int(lengths.sum())
    return total - int(shared.sum()), total


def shared_starts(ids: np.ndarray, first: np.ndarray, second: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """How many first tokens are the same in parts of an array that begin at `first` and at `second`; int64.

    lengths: of both parts, which may not be 0.
    """
    shared = np.empty(len(first), dtype=np.int64)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    for begin, end in portions(bounds):
        counts = lengths[begin:end]
        at = ranges(np.zeros(end - begin, dtype=np.int64), counts)
        same = ids[np.repeat(first[begin:end], counts) + at] == ids[np.repeat(second[begin:end], counts) + at]
        at[same] = np.iinfo(np.int64).max
        shared[begin:end] = np.minimum(np.minimum.reduceat(at, bounds[begin:end] - bounds[begin]), counts)
    return shared


def _sorted_within(columns: TokenColumns, sequences: np.ndarray, example: np.ndarray) -> np.ndarray:
    """The sequences of each example in the order of their tokens: neighbours then share the most. Two always do."""
    counts = np.bincount(example, minlength=len(columns))
    ends = np.cumsum(counts)
    ordered = sequences.copy()
    for number in np.flatnonzero(counts > 2).tolist():
        own = slice(ends[number] - counts[number], ends[number])
        ordered[own] = sorted(sequences[own], key=lambda n: columns.sequence(n).ids[:-1].astype(">i4").tobytes())
    return ordered
