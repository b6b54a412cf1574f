"""Memory that the process keeps: a training step asks for the same gigabytes again and again."""

from __future__ import annotations

import ctypes
import os
import platform

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Numbers of glibc's `mallopt` (malloc.h)."""
_OWN_WORDS = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")


def keep_memory() -> None:
    """Lets glibc's malloc keep what is freed, for the life of the process.

    As it is, large tensors are given back to the system when they are freed, and each page of the next one is a fault
    and a page of zeros, which can take longer than what is written there. Where the environment says how malloc is to
    behave nothing is done; where another library serves memory it has no effect.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc" or any(w in os.environ for w in _OWN_WORDS):
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MMAP_THRESHOLD, 1 << 30)
    mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
