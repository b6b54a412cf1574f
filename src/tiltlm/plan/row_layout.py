"""How examples are laid out in rows, which is for the model and the device to say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """What rows look like. It changes speed and memory, and results only in their last digits.

    trees: share prefixes and put several trees in a row. False: one sequence a row, padded on the right, as models
        need whose layers carry a state from token to token.
    row: rows are filled up to so many columns, or to the largest tree's. Longer rows share more (a system prompt common
        to all examples is laid out once a row) and pad less, but under a dense mask attention costs the square of a
        row's length. None: one row a micro-batch, where attention does not look at rows.
    multiple: rows of trees are padded to a multiple of so many columns: matrices with such sides suit a GPU, and steps
        then have few different shapes.
    blocks, runs: whether attention goes by blocks (`plan/blocks.py`) or runs (`plan/runs.py`), to be laid out too.
    """

    trees: bool = True
    row: int | None = 512
    multiple: int = 1
    blocks: bool = False
    runs: bool = False

    def rounded(self, columns: int) -> int:
        """How long rows are that must hold so many columns."""
        return -(-columns // self.multiple) * self.multiple if self.trees else columns


DENSE = Layout()
"""Trees in rows, for attention under a dense mask."""
BLOCKS = Layout(row=None, blocks=True)
"""Trees in one row, for attention by blocks."""
RUNS = Layout(multiple=64, runs=True)
"""Trees in rows, for attention by runs, or under a dense mask where the kernel does not serve the arithmetic."""
SEQUENCES = Layout(trees=False)
"""One sequence a row."""
