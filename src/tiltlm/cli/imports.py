"""Imports of a command that runs models: seconds of a start, of which the search for garbage is a third."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Within, modules are imported without a search for garbage, and what they made is in no later one: a million
    objects that live as long as the process."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
