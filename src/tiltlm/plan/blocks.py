"""Which columns attend together: a row of trees cut into small dense pieces (architecture, idea 1).

Under a dense mask attention costs the square of a row's length, whatever its trees are. But a token sees only its path
from the root. So the columns are cut into blocks of neighbours that hang from one node, each with the path to that
node: all of the block sees all of the path, and within the block the mask is small. A block's scores then stay in a
processor's cache, and what is computed grows as what is seen.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

WHOLE = 256
"""Trees of up to so many columns are not cut, and runs are cut into pieces of so many."""
WASTE = 16384
"""Pairs of columns that do not see each other and are computed all the same, rather than in one block more."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Neighbouring columns `start` to `end`, and the columns that they see, of the flattened rows.

    before: how many columns there are on the path from the root to the block, all of which all of the block sees.
    keys: int64, the path's columns and then the block's own; None where those are neighbours too, and so the columns
        `start - before` to `end`.
    mask: float32, shape (n, before + n), what is added to the scores of its columns: -inf where one does not see.
    """

    start: int
    end: int
    before: int
    keys: Tensor | None
    mask: Tensor

    def within(self, window: int) -> Block:
        """The same without the beginning of the path, which none of its columns sees as far back as `window`."""
        beyond = self.before - (window - 1)
        if beyond <= 0:
            return self
        keys = None if self.keys is None else self.keys[beyond:]
        return Block(self.start, self.end, self.before - beyond, keys, self.mask[:, beyond:])


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """All blocks of a micro-batch. Padding is in none.

    positions: int64 position of each column within its sequence, shape (R*L,). longest: the largest of them, and one.
    """

    blocks: tuple[Block, ...]
    positions: Tensor
    longest: int

    def within(self, window: int) -> Blocks:
        """The same for layers in which a column sees so many positions back, itself included."""
        return Blocks(tuple(block.within(window) for block in self.blocks), self.positions, self.longest)


def blocks_of(subtree_end_RL: np.ndarray, positions_RL: np.ndarray, filled_R: np.ndarray) -> Blocks:
    """Cuts rows into blocks.

    Args:
        subtree_end_RL, positions_RL: see `MicroBatch`.
        filled_R: how many columns of each row are not padding.
    """
    length = subtree_end_RL.shape[1]
    found: list[Block] = []
    for row, filled in enumerate(filled_R.tolist()):
        cut = _Cut(subtree_end_RL[row, :filled])
        found.extend(cut.block(*piece, offset=row * length) for piece in cut.pieces())
    positions = torch.from_numpy(positions_RL.reshape(-1))
    return Blocks(tuple(found), positions, int(positions_RL.max()) + 1)


class _Cut:
    """One row being cut."""

    def __init__(self, subtree_end: np.ndarray) -> None:
        self.end = subtree_end
        columns = len(subtree_end)
        # Where the child's subtree ends with its own, a column has one child: the run goes on.
        branches = np.flatnonzero(np.append(subtree_end[1:] != subtree_end[:-1], True)) + 1
        self.run_end = branches[np.searchsorted(branches, np.arange(columns), side="right")]

    def pieces(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Start, end and the path before each block, siblings first."""
        forests = [(0, len(self.end), np.empty(0, dtype=np.int64))]  # siblings, and the path to their parent
        while forests:
            start, stop, path = forests.pop()
            later = []
            for first, last in self._together(start, stop):
                if last - first <= WHOLE or self.end[first] != last:
                    yield first, last, path
                    continue
                run = int(self.run_end[first])
                for piece in range(first, run, WHOLE):
                    yield piece, min(piece + WHOLE, run), np.append(path, np.arange(first, piece))
                if run < last:
                    later.append((run, last, np.append(path, np.arange(first, run))))
            forests.extend(reversed(later))

    def _together(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Siblings from `start` to `stop`: neighbours together as long as little is wasted, larger ones alone."""
        first = start
        while first < stop:
            last = int(self.end[first])
            while last < stop:
                wasted, following = 2 * (last - first) * int(self.end[last] - last), int(self.end[last])
                if wasted > WASTE or following - first > WHOLE:
                    break
                last = following
            yield first, last
            first = last

    def block(self, start: int, end: int, path: np.ndarray, offset: int) -> Block:
        """A block whose columns are counted from the row's at `offset`."""
        before, columns = len(path), np.arange(start, end)
        adjacent = before == 0 or (path[0] == start - before and path[-1] == start - 1)
        if (self.end[start:end] < end).any():
            seen = (columns[None, :] <= columns[:, None]) & (columns[:, None] < self.end[None, start:end])
            mask = np.concatenate([np.zeros((end - start, before), np.float32), _hidden(seen)], axis=1)
        else:
            mask = _causal(WHOLE, 1 << before.bit_length())[: end - start, -before - WHOLE :][:, : before + end - start]
        keys = None if adjacent else torch.from_numpy(np.append(path, columns) + offset)
        return Block(start + offset, end + offset, before, keys, torch.from_numpy(mask))


def _hidden(seen: np.ndarray) -> np.ndarray:
    """-inf where a column does not see another, else 0."""
    return np.where(seen, np.float32(0), np.float32(-np.inf))


@functools.lru_cache(maxsize=8)
def _causal(columns: int, before: int) -> np.ndarray:
    """The mask of columns each of which sees the path before them and those up to itself. Blocks share it: of a long
    text there are many, and most of each mask is zeros."""
    own = _hidden(np.tri(columns, dtype=bool))
    return np.concatenate([np.zeros((columns, before), np.float32), own], axis=1)
