"""Files and folders that are there whole or not at all, whatever fails while they are written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tiltlm.errors import RunError

EARLIER = ".{}.earlier"
"""What a folder is called while another takes its place."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write a file or a folder to, which takes its place at the end, on disk by then.

    A reader sees what was there before or the whole of what is new. If anything fails, what was written so far is
    removed, as a full disk needs the room.

    Raises:
        OSError: it cannot be written, naming `path`.
        RunError: the folder that it belongs to is gone.
    """
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        with naming(path):
            _remove(unfinished)  # of a program that was killed
            yield unfinished
            put_in_place(unfinished, path)
    except BaseException as error:
        with suppress(OSError):
            _remove(unfinished)
        if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
            raise RunError(f"{path.parent} was removed or moved while it was being written: start again.") from error
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names the file in an error of writing it: the system names only what it could not open."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def put_in_place(made: Path, place: Path) -> None:
    """Gives a file or folder that was made aside its name, in one move, once the disk has all of it.

    What has the name is replaced; a folder with something in it is moved aside for that, and then removed.

    Raises:
        OSError: it cannot be written or moved.
    """
    _to_disk(made)
    earlier = place.with_name(EARLIER.format(place.name))
    if place.is_dir():
        _remove(earlier)
        place.rename(earlier)
    made.replace(place)
    sync(place.parent)
    _remove(earlier)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Waits until the disk has a file, or a folder with all in it: else its name could outlive its content."""
    for inner in (*path.rglob("*"), path) if path.is_dir() else (path,):
        sync(inner)


def sync(path: Path) -> None:
    """Waits until the disk has a file's content, or a folder's list of names."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
