"""What is too large for memory, in files without a name, which are gone when the process is."""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Any

import numpy as np

from tiltlm.errors import ConfigError
from tiltlm.storage.cache import cache_folder

IN_MEMORY = 1 << 26
"""Bytes of an array that is held in memory."""


class ScratchFile:
    """A file without a name in the cache folder, which is gone with this object.

    In the cache folder, as a system's folder of temporary files is often held in memory.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    @staticmethod
    def made() -> ScratchFile | None:
        """A new one; None where none can be made."""
        try:
            folder = cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            return ScratchFile(tempfile.TemporaryFile(dir=folder))
        except (OSError, ConfigError):
            return None

    def __del__(self) -> None:
        self._file.close()

    def write(self, content: bytes) -> int:
        """Writes at the end; how many bytes."""
        return int(self._file.write(content))

    def flush(self) -> None:
        """Hands all that was written to the system, so that it can be read."""
        self._file.flush()

    def read(self, start: int, length: int) -> bytes:
        """So many bytes from a place on."""
        return os.pread(self._file.fileno(), length, start)

    def mapped(self, size: int) -> mmap.mmap:
        """So many bytes of it as memory.

        Raises:
            OSError: the disk has no room for them.
        """
        # A file with holes would end the process when the disk is full.
        os.posix_fallocate(self._file.fileno(), 0, size)
        return mmap.mmap(self._file.fileno(), size)


def scratch_array(length: int, dtype: np.typing.DTypeLike) -> np.ndarray:
    """An array whose values are not set yet: a large one in a file, so that the system may write its pages out and use
    their memory; in memory where it is small, or no file can be had.
    """
    size = length * np.dtype(dtype).itemsize
    file = ScratchFile.made() if size > IN_MEMORY else None
    if file is None:
        return np.empty(length, dtype=dtype)
    try:
        return np.frombuffer(file.mapped(size), dtype=dtype)
    except (OSError, AttributeError):  # the latter where a system cannot set room aside
        return np.empty(length, dtype=dtype)
