"""Examples to micro-batches of packed rows, within a budget of columns (architecture, ideas 1, 2 and 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.objectives.interface import MISMATCHED
from tiltlm.plan.batches import MicroBatch, Plan
from tiltlm.plan.blocks import blocks_of
from tiltlm.plan.row_layout import Layout
from tiltlm.plan.runs import runs_of
from tiltlm.plan.tries import SortedSequences


def lists_of(counts: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The numbers of each example's sequences, best first, and -1 where there are none; int64, shape (examples, most).

    counts: how many sequences each example has. scores: of all of them; where there is none the order is as given.
    """
    members = np.concatenate([[0], np.cumsum(counts)])
    lists = np.full((len(counts), int(counts.max())), -1, dtype=np.int64)
    for number, (first, count) in enumerate(zip(members[:-1], counts, strict=True)):
        lists[number, :count] = first + np.argsort(-scores[first : first + count], kind="stable")
    return lists


Rows = list[list[int]]
"""The sequences of each row."""


def plan(
    columns: TokenColumns,
    examples: Sequence[int] | np.ndarray,
    token_budget: int,
    layout: Layout,
    reference: np.ndarray | None = None,
) -> Plan:
    """Cuts examples into micro-batches whose rows hold at most `token_budget` columns, padding included.

    Examples of like size come together, so that rows are full. One larger than the budget is a micro-batch of its
    own. The cut changes speed and memory, never the gradient: losses are summed over the whole plan.

    Args:
        columns: where the examples are; `examples` says which.
        layout: what rows look like.
        reference: log-probabilities of all scored tokens of the columns under the reference, float32, in nats.
    """
    numbers = np.asarray(examples, dtype=np.int64)
    if not len(numbers):
        raise ValueError("there is nothing to pack")
    packing = Packing(columns, numbers, layout, reference)
    batches = tuple(packing.micro_batch(group, rows) for group, rows in packing.groups(token_budget))
    labelled = packing.of_columns[columns.labels[packing.of_columns] != MISMATCHED]
    return Plan(batches, len(numbers), len(labelled), int(columns.scored_tokens_of(labelled).sum()))


class Packing:
    """Examples being planned. An example, or a sequence, is meant by its place among those of the plan.

    Args:
        columns, layout, reference: see `plan`. numbers: of the examples in the columns.

    firsts: example e has the sequences firsts[e] to firsts[e + 1].
    of_columns: numbers of the sequences in the columns.
    """

    def __init__(
        self, columns: TokenColumns, numbers: np.ndarray, layout: Layout, reference: np.ndarray | None
    ) -> None:
        self.columns, self.numbers, self.layout, self.reference = columns, numbers, layout, reference
        counts = columns.members[numbers + 1] - columns.members[numbers]
        self.firsts = np.concatenate([[0], np.cumsum(counts)])
        self.of_columns = np.concatenate([np.arange(columns.members[e], columns.members[e + 1]) for e in numbers])
        self.sorted = SortedSequences(columns, self.of_columns)

    def size(self, example: int) -> int:
        """Columns that an example takes, its prompt shared where prompts are."""
        sequences = self.sequences([example])
        if self.layout.trees:
            return self.sorted.tree_size(sequences)
        return sum(self.sorted.lengths[sequence] for sequence in sequences)

    def sequences(self, examples: Sequence[int]) -> list[int]:
        """The sequences of some examples."""
        return [s for example in examples for s in range(self.firsts[example], self.firsts[example + 1])]

    def groups(self, token_budget: int) -> list[tuple[list[int], Rows]]:
        """The examples of each micro-batch, with its rows."""
        groups: list[list[int]] = []
        room: list[int] = []  # free columns of each row of the last group
        capacity = 0
        sizes = [self._row_size(example) for example in range(len(self.numbers))]
        for example in sorted(range(len(sizes)), key=lambda example: -sizes[example]):
            size, own = sizes[example], int(self.firsts[example + 1] - self.firsts[example])
            fitting = next((r for r, free in enumerate(room) if free >= size), None) if self.layout.trees else None
            new_rows = 0 if fitting is not None else 1 if self.layout.trees else own
            if groups and (len(room) + new_rows) * capacity <= token_budget:
                groups[-1].append(example)
                room.extend([capacity] * new_rows)
                room[-1 if fitting is None else fitting] -= size
            else:
                groups.append([example])
                capacity = max(size, min(self.layout.row or token_budget, token_budget)) if self.layout.trees else size
                room = [capacity - size] if self.layout.trees else [0] * own
        return [part for group in groups for part in self._within_budget(group, token_budget)]

    def _row_size(self, example: int) -> int:
        """Columns of the longest row this example needs."""
        sequences = self.sequences([example])
        if self.layout.trees:
            return self.sorted.tree_size(sequences)
        return max(self.sorted.lengths[sequence] for sequence in sequences)

    def _within_budget(self, group: list[int], token_budget: int) -> list[tuple[list[int], Rows]]:
        """Halves a group that comes out too large: examples of one prompt share a tree, which may want longer rows."""
        sequences = self.sequences(group)
        if not self.layout.trees:
            return [(group, [[sequence] for sequence in sequences])]
        rows, longest = self._fill_rows(sequences)
        if len(group) == 1 or len(rows) * longest <= token_budget:
            return [(group, rows)]
        half = len(group) // 2
        return [part for some in (group[:half], group[half:]) for part in self._within_budget(some, token_budget)]

    def _fill_rows(self, sequences: list[int]) -> tuple[Rows, int]:
        """Distributes sequences over as few rows as first fit decreasing needs; answers to one prompt stay together.

        Returns:
            The rows, and how many columns the longest of them needs.
        """
        prompts = self.sorted.by_prompt(sequences)
        sizes = [self.sorted.tree_size(answers) for answers in prompts]
        order = sorted(range(len(prompts)), key=lambda index: -sizes[index])
        capacity = sum(sizes) if self.layout.row is None else max(self.layout.row, *sizes)
        fitted: Rows = []
        for index in order:
            room = (row for row in fitted if sum(sizes[i] for i in row) + sizes[index] <= capacity)
            row = next(room, None)
            if row is None:
                fitted.append(row := [])
            row.append(index)
        # The same number of rows, filled evenly: every row is padded to the longest.
        even: Rows = [[] for _ in fitted]
        for index in order:
            min(even, key=lambda row: sum(sizes[i] for i in row)).append(index)
        best = min(fitted, even, key=lambda rows: max(sum(sizes[i] for i in row) for row in rows))
        filled = [[sequence for index in row for sequence in prompts[index]] for row in best]
        return filled, self.layout.rounded(max(self.sorted.tree_size(row) for row in filled))

    def micro_batch(self, group: list[int], rows: Rows) -> MicroBatch:
        """Lays a group of examples out in the given rows."""
        laid_out = [self.sorted.lay_out(row) for row in rows]
        length = self.layout.rounded(max(len(row.tokens) for row in laid_out))
        shape = (len(rows), length)
        tokens, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        # A padding column is a tree of its own: it sees itself, so no attention row is empty (which would be NaN).
        subtree_end = np.tile(np.arange(1, length + 1, dtype=np.int64), (len(rows), 1))
        for index, row in enumerate(laid_out):
            used = slice(len(row.tokens))
            tokens[index, used], positions[index, used] = row.tokens, row.positions
            subtree_end[index, used] = row.subtree_end
        filled = np.array([len(row.tokens) for row in laid_out])
        own = self.sequences(group)
        place_of = {sequence: place for place, sequence in enumerate(own)}
        scored = np.array([sequence for row in laid_out for sequence in row.sequences])
        of_columns = self.of_columns[own]
        counts = self.columns.scored_tokens_of(of_columns)
        offsets = np.concatenate([np.arange(counts[place_of[sequence]]) for sequence in scored])
        order = np.array([place_of[sequence] for sequence in scored])
        sequence_S = np.repeat(order, counts[order])
        starts = self.columns.bounds[of_columns] + self.columns.first_scored[of_columns]
        places = self.columns.scored_starts[of_columns][sequence_S] + offsets
        return MicroBatch(
            tokens_RL=torch.from_numpy(tokens),
            positions_RL=torch.from_numpy(positions),
            subtree_end_RL=torch.from_numpy(subtree_end),
            score_at_S=torch.from_numpy(np.concatenate([r * length + row.score_at for r, row in enumerate(laid_out)])),
            score_token_S=torch.from_numpy(self.columns.ids[starts[sequence_S] + offsets].astype(np.int64)),
            score_sequence_S=torch.from_numpy(sequence_S),
            offset_S=torch.from_numpy(offsets),
            reference_S=None if self.reference is None else torch.from_numpy(self.reference[places]),
            labels_N=torch.from_numpy(self.columns.labels[of_columns]),
            scores_N=torch.from_numpy(self.columns.scores[of_columns]),
            list_UK=torch.from_numpy(lists_of(np.diff(self.firsts)[group], self.columns.scores[of_columns])),
            tokens_N=torch.from_numpy(counts),
            examples=self.numbers[group],
            places=places,
            laid_out=int(filled.sum()),
            trees=self.layout.trees,
            credit_S=None if self.columns.credit is None else torch.from_numpy(self.columns.credit[places]),
            blocks=blocks_of(subtree_end, positions, filled) if self.layout.blocks else None,
            runs=runs_of(subtree_end, filled) if self.layout.runs else None,
        )
