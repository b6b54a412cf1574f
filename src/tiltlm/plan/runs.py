"""A trie's runs: what a kernel for sequences of uneven lengths needs to attend over packed rows without a mask.

A run is a stretch of columns in which each is the child of the one before: depth-first, a trie falls into as many runs
as it has leaves. The first column of a run sees the path from its root, the next sees one more, and so on: causal
attention, aligned at the end, of the run's columns over the path to its last. So one call, whose segments have a run's
columns for queries and its path's for keys, gives what the mask `j <= i < subtree_end[j]` gives. Positions climb by one
along a path, so that a window of positions is a window of its places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

LONGEST_MULTIPLE = 128
"""The longest lengths are rounded up to a multiple of this: they only bound a kernel's grid, and a compiled region that
takes one for a constant is then compiled for few of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """The runs of a micro-batch's rows, N of them, in the order of the flattened (R*L) columns, which they cover.

    query_bounds: int32, shape (N + 1,): run n has the columns query_bounds[n] to query_bounds[n + 1].
    key_bounds: int32, shape (N + 1,): and its path is key_at_K[key_bounds[n] : key_bounds[n + 1]].
    key_at_K: int64 flattened columns of all paths, one after another.
    longest_run, longest_path: at least as much as the longest has.

    The padding at the end of a row is a run with no path but itself: what comes of it is finite, and read by no one.
    """

    query_bounds: Tensor
    key_bounds: Tensor
    key_at_K: Tensor
    longest_run: int
    longest_path: int

    def each(self, change: Callable[[Tensor], Tensor]) -> Runs:
        """The same with its tensors changed: moved to a device, or into page-locked memory."""
        return replace(
            self,
            query_bounds=change(self.query_bounds),
            key_bounds=change(self.key_bounds),
            key_at_K=change(self.key_at_K),
        )


def runs_of(subtree_end_RL: np.ndarray, filled_R: np.ndarray) -> Runs:
    """The runs of rows of tries.

    Args:
        subtree_end_RL: see `MicroBatch`.
        filled_R: how many columns of each row are not padding.
    """
    length = subtree_end_RL.shape[1]
    starts: list[int] = []
    paths: list[np.ndarray] = []
    for row, (subtree_end, filled) in enumerate(zip(subtree_end_RL, filled_R.tolist(), strict=True)):
        first = row * length
        for start, path in _of_row(subtree_end[:filled]):
            starts.append(first + start)
            paths.append(first + path)
        if filled < length:
            starts.append(first + filled)
            paths.append(np.arange(first + filled, first + length))
    query_bounds = np.array([*starts, subtree_end_RL.size])
    path_lengths = np.array([len(path) for path in paths])
    return Runs(
        query_bounds=torch.from_numpy(query_bounds.astype(np.int32)),
        key_bounds=torch.from_numpy(np.concatenate([[0], np.cumsum(path_lengths)]).astype(np.int32)),
        key_at_K=torch.from_numpy(np.concatenate(paths).astype(np.int64)),
        longest_run=_rounded(int(np.diff(query_bounds).max())),
        longest_path=_rounded(int(path_lengths.max())),
    )


def _of_row(subtree_end: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """The first column of each run of a row without padding, and the columns of the path to its last."""
    columns = len(subtree_end)
    # A column that begins where the subtree of the one before it ends is not its child.
    starts = np.flatnonzero(np.concatenate([[True], subtree_end[:-1] == np.arange(1, columns)]))
    found, path = [], np.empty(0, dtype=np.int64)
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), columns], strict=True):
        path = np.concatenate([path[subtree_end[path] > start], np.arange(start, end)])
        found.append((start, path))
    return found


def _rounded(length: int) -> int:
    return -(-length // LONGEST_MULTIPLE) * LONGEST_MULTIPLE
