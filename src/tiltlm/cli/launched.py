"""What torchrun has told this process: how many there are, and which it is."""

from __future__ import annotations

import os


def rank() -> int:
    """The number of this process among those of its job."""
    return int(os.environ.get("RANK", "0")) if one_of_several() else 0


def is_first_rank() -> bool:
    """Whether this process is the one that speaks."""
    return rank() == 0


def one_of_several() -> bool:
    """Whether the job has several processes, which must name their run alike without asking each other."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
