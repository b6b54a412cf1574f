"""Memory that the process keeps, in large pages: a training step asks for the same gigabytes again and again."""

from __future__ import annotations

import ctypes
import os
import platform

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
"""Numbers of glibc's `mallopt` (malloc.h)."""
_HUGE_PAGES = 14
"""Linux's `madvise` by that number: MADV_HUGEPAGE."""
_PAGE = 2 << 20
_OWN_WORDS = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")


def keep_memory() -> None:
    """Lets glibc's malloc keep what is freed, for the life of the process, and take it in pages of 2 MiB.

    As it is, large tensors are given back to the system when they are freed, and each 4 KiB of the next one is a fault
    and a page of zeros, which can take longer than what is written there; and gigabytes in pages so small are read
    slowly. Where the environment says how malloc is to behave nothing is done; where another library serves memory it
    has no effect. What is kept in large pages is room alone until it is written to.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc" or any(w in os.environ for w in _OWN_WORDS):
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)  # never: as a size it is the largest there is
    _ask_for_large_pages(libc, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4)


def _ask_for_large_pages(libc: ctypes.CDLL, size: int) -> None:
    """Lets the heap grow by `size` bytes, none of which is touched, and asks for large pages there."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if size < 2 * _PAGE or not (start := libc.malloc(size)):
        return
    first = -(-start // _PAGE) * _PAGE
    libc.madvise(first, (start + size - first) // _PAGE * _PAGE, _HUGE_PAGES)
    libc.free(start)
