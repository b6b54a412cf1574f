"""Free space on a disk, looked at before work whose result would not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

from tiltlm.errors import RunError

_WEIGHTS = (".safetensors", ".bin")


def require_space(folder: Path, needed: int, what: str, mend: str) -> None:
    """Refuses work whose result would not fit.

    folder: where it will be written, there or not yet.
    needed: bytes that will be written at least.
    what: their name in the message; mend: the option or variable to change.

    Raises:
        RunError: there is less free space.
    """
    free = free_bytes(folder)
    if free < needed:
        raise RunError(
            f"not enough disk space in {folder}: {what} takes about {in_words(needed)}, and {in_words(free)} are free. "
            f"Free some, or choose another place ({mend})."
        )


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written where a folder is or will be."""
    path = folder.resolve()
    return shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder; links are not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def weight_bytes(folder: Path) -> int:
    """Bytes of the weight files of a model's folder; 0 where there are none, as for an id of the hub."""
    if not folder.is_dir():
        return 0
    files = [path for path in folder.iterdir() if path.is_file()]
    sizes = {kind: sum(path.stat().st_size for path in files if path.suffix == kind) for kind in _WEIGHTS}
    return next((size for size in sizes.values() if size), 0)


def in_words(amount: int) -> str:
    """`0.5 GB`, `12 MB`: decimal units, as disks are sold."""
    if amount >= 50_000_000:
        return f"{amount / 1e9:,.1f} GB"
    return f"{max(amount, 0) / 1e6:,.0f} MB"
