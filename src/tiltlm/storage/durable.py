"""Files that are on the disk once they are said to be: what a power cut leaves is the old or the new, never half."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk.

    Raises:
        OSError: the disk is full or broken.
    """
    if path.is_dir() and os.name == "nt":
        return  # a folder cannot be opened there, and its names are kept by the file system's own journal
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_into_place(made: Path, place: Path) -> None:
    """Gives a file or a folder of files that was made aside its name, in one move, once all of it is on the disk.

    Raises:
        OSError: it cannot be written or moved.
    """
    if made.is_dir():
        for path in made.iterdir():
            sync(path)
    sync(made)
    made.replace(place)
    sync(place.parent)
