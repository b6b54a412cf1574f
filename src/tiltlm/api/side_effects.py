"""Keeping what is the caller's as it is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled


@contextmanager
def leaving_no_trace() -> Iterator[None]:
    """Within, the libraries' own bars are off; afterwards they, and the random generators, are as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    bars = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        # Every device, as without the argument, which would warn where there are several.
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if bars:
            enable_progress_bar()
