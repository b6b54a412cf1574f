"""The machine's troubles as libraries tell them, each in a way of its own, known without importing any of them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|unable to allocate|bad_alloc|"
    r"STATUS_ALLOC_FAILED|failed to map segment from shared object",
    re.IGNORECASE,
)
_ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+ [KMGTPE]i?B|\d+ bytes)|[Uu]nable to allocate ([\d.]+ [KMGTPE]i?B)")
_OF_RUST = re.compile(r"\(os error (\d+)\)")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory, of the machine or of the device, did not suffice.

    Python and NumPy raise MemoryError, torch a RuntimeError of many wordings, the system ENOMEM; a library that is
    loaded late and finds no room is an ImportError.
    """
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError | ImportError) and _OUT_OF_MEMORY.search(str(error)) is not None


def memory_asked_for(error: BaseException) -> str | None:
    """How much was asked for when memory did not suffice, such as `2.00 GiB`; None where the library does not say."""
    found = _ASKED.search(str(error))
    if found is None:
        return None
    amount = found[1] or found[2]
    return f"{int(amount.split()[0]) / 2**30:.2f} GiB" if amount.endswith(" bytes") else amount


@contextmanager
def as_os_error(path: Path) -> Iterator[None]:
    """Turns what libraries written in Rust (safetensors, tokenizers) say of the system into an OSError of `path`.

    Raises:
        OSError: in place of theirs, which is a plain Exception with the system's number in its text.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # of no narrower type
        found = _OF_RUST.search(str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error
