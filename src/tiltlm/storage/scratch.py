"""What is too large for memory, in files without a name, which are gone when the process is.

They lie in the folder TILTLM_SCRATCH, else in the cache folder, as a system's folder of temporary files is often held
in memory. Where several machines share the cache, each process would write its own there: name a disk of the machine.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tiltlm.errors import ConfigError
from tiltlm.storage.cache import cache_folder

IN_MEMORY = 1 << 26
"""Bytes of an array that is held in memory."""
_WRITTEN_AT_ONCE = 1 << 20


def scratch_folder() -> Path:
    """Where files without a name lie.

    Raises:
        ConfigError: there is no such folder for this user.
    """
    chosen = os.environ.get("TILTLM_SCRATCH")
    return Path(chosen).expanduser() if chosen else cache_folder()


class ScratchFile:
    """A file without a name, which is gone with this object."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._held = bytearray()

    @staticmethod
    def made() -> ScratchFile | None:
        """A new one; None where none can be made."""
        try:
            folder = scratch_folder()
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=".tiltlm-", dir=folder)
            Path(name).unlink()
            return ScratchFile(descriptor)
        except (OSError, ConfigError):
            return None

    def __del__(self) -> None:
        os.close(self._descriptor)

    def write(self, content: bytes) -> int:
        """Writes at the end; how many bytes.

        Raises:
            OSError: the disk is full.
        """
        self._held += content
        if len(self._held) > _WRITTEN_AT_ONCE:
            self.flush()
        return len(content)

    def flush(self) -> None:
        """Hands all that was written to the system, so that it can be read.

        Raises:
            OSError: the disk is full.
        """
        with memoryview(self._held) as held:
            done = 0
            while done < len(held):
                done += os.write(self._descriptor, held[done:])
        self._held.clear()

    def read(self, start: int, length: int) -> bytes:
        """So many bytes from a place on."""
        return os.pread(self._descriptor, length, start)

    def mapped(self, size: int) -> mmap.mmap:
        """So many bytes of it as memory.

        Raises:
            OSError: the disk has no room for them.
        """
        # A file with holes would end the process when the disk is full.
        os.posix_fallocate(self._descriptor, 0, size)
        return mmap.mmap(self._descriptor, size)


def scratch_array(
    length: int, dtype: np.typing.DTypeLike, said: Callable[[str], None] = lambda why: None
) -> np.ndarray:
    """An array whose values are not set yet: a large one in a file, so that the system may write its pages out and use
    their memory; in memory where it is small, or no file can be had.

    said: is told why no file could be had for a large one.
    """
    size = length * np.dtype(dtype).itemsize
    if size <= IN_MEMORY:
        return np.empty(length, dtype=dtype)
    try:
        if (file := ScratchFile.made()) is not None:
            return np.frombuffer(file.mapped(size), dtype=dtype)
        said("no file can be made in the folder of scratch files")
    except (OSError, AttributeError) as error:  # the latter where a system cannot set room aside
        said(str(error))
    return np.empty(length, dtype=dtype)
