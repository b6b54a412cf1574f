"""What torchrun has told this process: how many there are, which it is, and how often the job was started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiltlm.config.resuming import Resume


def rank() -> int:
    """The number of this process among those of its job."""
    return int(os.environ.get("RANK", "0"))


def is_first_rank() -> bool:
    """Whether this process is the one that speaks."""
    return rank() == 0


def one_of_several() -> bool:
    """Whether the job has several processes, which must name their run alike without asking each other."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def after_restart(run: Path) -> Resume | None:
    """The run to go on with where torchrun starts the job anew, as it does with --max-restarts after a rank was lost;
    None where the run had not begun its work."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0:
        return None
    from tiltlm.config.resuming import Resume
    from tiltlm.pipeline.resumption import DATA_REPORT

    return Resume(run, frozenset()) if (run / DATA_REPORT).is_file() else None
