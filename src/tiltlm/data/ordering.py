"""Which pairs make up which optimizer step."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np


def steps_per_epoch(pairs: int, batch_pairs: int) -> int:
    """Optimizer steps in one pass; the last one holds what is left over."""
    return math.ceil(pairs / batch_pairs)


def batches(pairs: int, batch_pairs: int, steps: int, seed: int) -> Iterator[list[int]]:
    """Indices of each step's pairs: every pass is a new permutation, decided by (seed, pass) alone.

    A pass never leaves a pair out: its last batch may be smaller.
    """
    per_epoch = steps_per_epoch(pairs, batch_pairs)
    for step in range(steps):
        epoch, part = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(pairs)
        yield order[part * batch_pairs : (part + 1) * batch_pairs].tolist()
