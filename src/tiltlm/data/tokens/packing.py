"""Pairs to packed rows: shared prefixes laid out once, as trees (architecture, ideas 1 and 2).

A row is a trie of token sequences, written depth-first. Sorting the sequences does most of the work:
neighbours in sorted order share the longest prefixes, so one pass with a comparison to the previous
sequence lays out the whole trie.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from tiltlm.data.tokens.token_columns import TokenizedExample, TokenizedSequence
from tiltlm.records import PackedBatch

ROW_COLUMNS = 512
"""Rows are filled up to this length, or to the largest tree's. Longer rows share more (a system prompt common to all
pairs is laid out once a row) and pad less, but attention costs the square of a row's length."""


@dataclass(slots=True)
class _Row:
    """One row while it is being laid out; lists are indexed by column, scores by scored position."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    subtree_end: list[int] = field(default_factory=list)
    score_at: list[int] = field(default_factory=list)
    score_token: list[int] = field(default_factory=list)
    score_segment: list[int] = field(default_factory=list)


def tree_size(sequences: Iterable[TokenizedSequence]) -> int:
    """Number of columns the sequences take when laid out together, prefixes shared."""
    size, previous = 0, np.empty(0, dtype=np.int32)
    for ids in sorted((_laid_out(sequence) for sequence in sequences), key=_sort_key):
        size += len(ids) - shared_prefix(previous, ids)
        previous = ids
    return size


def shared_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """Length of the longest common prefix of two token arrays."""
    shortest = min(len(a), len(b))
    different = a[:shortest] != b[:shortest]
    return int(different.argmax()) if different.any() else shortest


def micro_batches(
    pairs: Sequence[TokenizedExample], token_budget: int, trees: bool = True
) -> list[list[TokenizedExample]]:
    """Cuts pairs into groups whose rows hold at most `token_budget` columns, padding included.

    Pairs of like size come together, so that rows are full. A pair larger than the budget is a group of
    its own. The grouping changes speed and memory, never the gradient: losses are summed over pairs.
    """
    groups: list[list[TokenizedExample]] = []
    room: list[int] = []  # free columns of each row of the last group
    capacity = 0
    for size, pair in sorted(((_row_size(pair, trees), pair) for pair in pairs), key=lambda item: -item[0]):
        fitting = next((r for r, free in enumerate(room) if free >= size), None) if trees else None
        new_rows = 0 if fitting is not None else 1 if trees else 2
        if groups and (len(room) + new_rows) * capacity <= token_budget:
            groups[-1].append(pair)
            room.extend([capacity] * new_rows)
            room[-1 if fitting is None else fitting] -= size
        else:
            groups.append([pair])
            capacity = max(size, min(ROW_COLUMNS, token_budget)) if trees else size
            room = [capacity - size] if trees else [0, 0]
    return [part for group in groups for part in _within_budget(group, token_budget, trees)]


def _within_budget(group: list[TokenizedExample], token_budget: int, trees: bool) -> list[list[TokenizedExample]]:
    """Halves a group that comes out too large: pairs of one prompt share a tree, which may want longer rows."""
    sequences = [sequence for pair in group for sequence in (pair.chosen, pair.rejected)]
    if not trees or len(group) == 1 or _columns(sequences) <= token_budget:
        return [group]
    half = len(group) // 2
    return [part for some in (group[:half], group[half:]) for part in _within_budget(some, token_budget, trees)]


def _columns(sequences: Sequence[TokenizedSequence]) -> int:
    """Columns of the rows that `pack_sequences` makes of these, padding included."""
    sizes = [tree_size(sequences[segment] for segment in row) for row in _fill_rows(sequences)]
    return len(sizes) * max(sizes)


def _row_size(pair: TokenizedExample, trees: bool) -> int:
    """Columns of the longest row this pair needs."""
    if trees:
        return tree_size((pair.chosen, pair.rejected))
    return max(len(pair.chosen.ids), len(pair.rejected.ids)) - 1


def pack_pairs(pairs: Sequence[TokenizedExample], trees: bool = True) -> PackedBatch:
    """Packs pairs; pair p's chosen completion is segment 2p and its rejected completion 2p + 1."""
    return pack_sequences([sequence for pair in pairs for sequence in (pair.chosen, pair.rejected)], trees)


def pack_sequences(sequences: Sequence[TokenizedSequence], trees: bool = True) -> PackedBatch:
    """Lays token sequences out in rows.

    Args:
        sequences: what to score; segment s of the result is `sequences[s]`.
        trees: share prefixes and put several trees in a row. False: one sequence a row, padded on the right.
    """
    if not sequences:
        raise ValueError("there is nothing to pack")
    groups = _fill_rows(sequences) if trees else [[segment] for segment in range(len(sequences))]
    rows = [_lay_out([(segment, sequences[segment]) for segment in group]) for group in groups]
    length = max(len(row.tokens) for row in rows)
    shape = (len(rows), length)
    tokens, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    # A padding column is a tree of its own: it sees itself, so no attention row is empty (which would be NaN).
    subtree_end = np.tile(np.arange(1, length + 1, dtype=np.int64), (len(rows), 1))
    for index, row in enumerate(rows):
        columns = len(row.tokens)
        tokens[index, :columns] = row.tokens
        positions[index, :columns] = row.positions
        subtree_end[index, :columns] = row.subtree_end
    return PackedBatch(
        tokens_RL=torch.from_numpy(tokens),
        positions_RL=torch.from_numpy(positions),
        subtree_end_RL=torch.from_numpy(subtree_end),
        score_at_S=torch.tensor([r * length + at for r, row in enumerate(rows) for at in row.score_at]),
        score_token_S=torch.tensor([token for row in rows for token in row.score_token]),
        score_segment_S=torch.tensor([segment for row in rows for segment in row.score_segment]),
        sequences=len(sequences),
        trees=trees,
    )


def _fill_rows(sequences: Sequence[TokenizedSequence]) -> list[list[int]]:
    """Distributes sequences over as few rows as first fit decreasing needs; answers to one prompt stay together."""
    families = _families(sequences)
    sizes = [tree_size(sequences[segment] for segment in family) for family in families]
    order = sorted(range(len(families)), key=lambda index: -sizes[index])
    capacity = max(ROW_COLUMNS, *sizes)
    fitted: list[list[int]] = []
    for index in order:
        room = (row for row in fitted if sum(sizes[i] for i in row) + sizes[index] <= capacity)
        row = next(room, None)
        if row is None:
            fitted.append(row := [])
        row.append(index)
    # The same number of rows, filled evenly: every row is padded to the longest.
    even: list[list[int]] = [[] for _ in fitted]
    for index in order:
        min(even, key=lambda row: sum(sizes[i] for i in row)).append(index)
    best = min(fitted, even, key=lambda rows: max(sum(sizes[i] for i in row) for row in rows))
    return [[segment for index in row for segment in families[index]] for row in best]


def _families(sequences: Sequence[TokenizedSequence]) -> list[list[int]]:
    """Groups of sequences that answer the same prompt; the rest of the sharing is the trie's."""
    order = sorted(range(len(sequences)), key=lambda segment: _sort_key(_laid_out(sequences[segment])))
    families: list[list[int]] = []
    for segment in order:
        if families:
            neighbour, sequence = sequences[families[-1][-1]], sequences[segment]
            stem = shared_prefix(_laid_out(neighbour), _laid_out(sequence))
            if stem >= max(1, min(neighbour.first_scored, sequence.first_scored) - 1):
                families[-1].append(segment)
                continue
        families.append([segment])
    return families


def _lay_out(segments: list[tuple[int, TokenizedSequence]]) -> _Row:
    """Writes the trie of the given (segment, sequence) list depth-first into one row."""
    row = _Row()
    path: list[int] = []  # column of each position along the sequence being written
    previous = np.empty(0, dtype=np.int32)
    for segment, sequence in sorted(segments, key=lambda item: _sort_key(_laid_out(item[1]))):
        ids = _laid_out(sequence)
        stem = shared_prefix(previous, ids)
        # Whatever hangs below the stem on the old path is complete: its subtrees end here.
        for column in path[stem:]:
            row.subtree_end[column] = len(row.tokens)
        new = range(len(row.tokens), len(row.tokens) + len(ids) - stem)
        path = path[:stem] + list(new)
        row.tokens.extend(ids[stem:].tolist())
        row.positions.extend(range(stem, len(ids)))
        row.subtree_end.extend([-1] * len(new))
        row.score_at.extend(path[sequence.first_scored - 1 :])
        row.score_token.extend(sequence.ids[sequence.first_scored :].tolist())
        row.score_segment.extend([segment] * sequence.scored_tokens)
        previous = ids
    for column in path:
        row.subtree_end[column] = len(row.tokens)
    return row


def _laid_out(sequence: TokenizedSequence) -> np.ndarray:
    """All tokens but the last: nothing is predicted from the last, so it needs no column."""
    return sequence.ids[:-1]


def _sort_key(ids: np.ndarray) -> bytes:
    # Big-endian bytes of non-negative integers sort as the integers do.
    return ids.astype(">i4").tobytes()
