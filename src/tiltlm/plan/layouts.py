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
    blocks: whether attention is computed by blocks, which are then laid out too (`plan/blocks.py`).
    """

    trees: bool = True
    row: int | None = 512
    blocks: bool = False


DENSE = Layout()
"""Trees in rows, for attention under a dense mask."""
BLOCKS = Layout(row=None, blocks=True)
"""Trees in one row, for attention by blocks."""
SEQUENCES = Layout(trees=False)
"""One sequence a row."""
