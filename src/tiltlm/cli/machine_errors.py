"""Errors of the machine rather than of the program: a full disk, a folder not to be written, too little memory."""

from __future__ import annotations

import errno
import sqlite3

from safetensors import SafetensorError

from tiltlm.storage.cache import cache_folder
from tiltlm.storage.library_errors import is_out_of_memory, memory_asked_for

MACHINE_ERRORS = (OSError, sqlite3.DatabaseError, SafetensorError, MemoryError, RuntimeError, ImportError)
"""What may come of the machine; `in_words` tells."""

# What mends them. Any other OSError is a mistake of ours, and is not hidden.
_SPACE, _RIGHTS, _PLACE = "free space", "change its permissions", "move away what is there"
_MACHINE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: f"{_SPACE}, allow larger files (ulimit -f)",
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENOTDIR: _PLACE,
    errno.EISDIR: _PLACE,
    errno.EIO: "look at the disk",
    errno.ESTALE: "look at the network disk",
    errno.ENAMETOOLONG: "shorten the name",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "close other programs, as the system has too many files open",
}
_NO_THREAD = "can't start new thread"


def in_words(error: Exception) -> str | None:
    """What is wrong and what mends it, in a sentence or two; None where the error is not the machine's."""
    if is_out_of_memory(error):
        asked = memory_asked_for(error)
        return (
            f"memory did not suffice{f' when {asked} more were asked for' if asked else ''}: free some, or take "
            "less data, a smaller model or a lower training.micro_batch_tokens."
        )
    if isinstance(error, sqlite3.Error):
        if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
            return None
        return (
            f"the cache in {cache_folder()} cannot be used: {error}. Free space, or set TILTLM_CACHE to another folder."
        )
    if isinstance(error, SafetensorError):
        if "os error" not in str(error):
            return None
        return f"the model cannot be written: {error}. Free space, or choose another --run.directory."
    if not isinstance(error, OSError):
        return f"{error}: allow this user more processes (ulimit -u)." if str(error) == _NO_THREAD else None
    if error.errno not in _MACHINE:
        return None
    place = f"{error.filename} cannot be written or read" if error.filename else "a file cannot be written"
    mend = _MACHINE[error.errno]
    return f"{place}: {error.strerror}. Either {mend}, or choose another --run.directory (TILTLM_CACHE for the cache)."
