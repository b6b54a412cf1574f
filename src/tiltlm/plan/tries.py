"""Token sequences in sorted order, which is all that it takes to lay them out as tries (architecture, idea 1).

Neighbours in sorted order share the longest prefixes, and any two sequences share the least of what the neighbours
between them share. So sequences are sorted and compared once, and every later question (how large is a tree of these
few, which belong to one prompt, where does a branch leave its row) is answered by those numbers alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tiltlm.data.tokens.token_columns import TokenColumns


@dataclass(frozen=True, slots=True, eq=False)
class LaidOutRow:
    """A trie of sequences, written depth-first. `score_at` indexes the row's columns.

    sequences: which they are, in the order in which they stand in the lists of what is scored.
    """

    tokens: np.ndarray
    positions: np.ndarray
    subtree_end: np.ndarray
    score_at: np.ndarray
    sequences: tuple[int, ...]


class SortedSequences:
    """Some sequences of token columns, sorted by their tokens.

    All tokens of a sequence but the last are laid out: nothing is predicted from the last, so it needs no column.

    Args:
        columns: where they are.
        numbers: which they are. Everywhere here a sequence is meant by its place in this list.
    """

    def __init__(self, columns: TokenColumns, numbers: np.ndarray) -> None:
        self.first_scored = columns.first_scored[numbers]
        starts, ends = columns.bounds[numbers], columns.bounds[numbers + 1]
        self._ids = [columns.ids[start:end] for start, end in zip(starts, ends, strict=True)]
        self.lengths: list[int] = (ends - starts - 1).tolist()
        # Big-endian bytes of non-negative integers sort as the integers do.
        keys = [ids[:-1].astype(">i4").tobytes() for ids in self._ids]
        order = sorted(range(len(numbers)), key=keys.__getitem__)
        self.rank = np.empty(len(order), dtype=np.int64)
        self.rank[order] = np.arange(len(order))
        shared = [shared_prefix(self._ids[a][:-1], self._ids[b][:-1]) for a, b in itertools.pairwise(order)]
        self._shared = np.array([0, *shared], dtype=np.int64)

    def sort(self, sequences: Iterable[int]) -> list[int]:
        """The sequences in sorted order."""
        return sorted(sequences, key=self.rank.__getitem__)

    def stem(self, before: int, after: int) -> int:
        """Length of the common prefix of two sequences, the first of which sorts before the second."""
        return int(self._shared[self.rank[before] + 1 : self.rank[after] + 1].min())

    def tree_size(self, sequences: Iterable[int]) -> int:
        """Number of columns the sequences take when laid out together, prefixes shared."""
        order = self.sort(sequences)
        saved = sum(self.stem(a, b) for a, b in itertools.pairwise(order))
        return sum(self.lengths[sequence] for sequence in order) - saved

    def by_prompt(self, sequences: Iterable[int]) -> list[list[int]]:
        """Groups of sequences that answer the same prompt; what else they share is the trie's to find."""
        groups: list[list[int]] = []
        for sequence in self.sort(sequences):
            if groups:
                neighbour = groups[-1][-1]
                prompt = min(self.first_scored[neighbour], self.first_scored[sequence])
                if self.stem(neighbour, sequence) >= max(1, prompt - 1):
                    groups[-1].append(sequence)
                    continue
            groups.append([sequence])
        return groups

    def lay_out(self, sequences: Sequence[int]) -> LaidOutRow:
        """Writes the trie of some sequences into one row."""
        order = self.sort(sequences)
        tokens, positions, score_at, ends = [], [], [], []
        path = np.empty(0, dtype=np.int64)  # column of each position along the sequence being written
        columns, previous = 0, None
        for sequence in order:
            stem = 0 if previous is None else self.stem(previous, sequence)
            # Whatever hangs below the stem on the old path is complete: its subtrees end here.
            ends.append((path[stem:], columns))
            new = self.lengths[sequence] - stem
            path = np.concatenate([path[:stem], np.arange(columns, columns + new)])
            tokens.append(self._ids[sequence][stem:-1])
            positions.append(np.arange(stem, stem + new))
            score_at.append(path[self.first_scored[sequence] - 1 :])
            columns, previous = columns + new, sequence
        ends.append((path, columns))
        subtree_end = np.empty(columns, dtype=np.int64)
        for column, end in ends:
            subtree_end[column] = end
        return LaidOutRow(
            np.concatenate(tokens), np.concatenate(positions), subtree_end, np.concatenate(score_at), tuple(order)
        )


def shared_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """Length of the longest common prefix of two token arrays."""
    shortest = min(len(a), len(b))
    different = a[:shortest] != b[:shortest]
    return int(different.argmax()) if different.any() else shortest
