"""A machine that fails at the n-th call which changes its disk, and what must hold of all that such a call left behind.

Python's own calls (making, opening, renaming, removing, syncing) fail by an audit hook, which none of them passes by;
what is written to a file fails in the kernel, as the file is then /dev/full. What native code writes (safetensors,
SQLite, Arrow) needs a disk that is really full: a small tmpfs, or a limit on the size of files.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tiltlm.data.tokens.token_store import map_columns

FULL = "/dev/full"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.symlink", "os.link")
_FREEING = ("os.remove", "os.rmdir")


@dataclass(slots=True)
class Fault:
    """What fails below a folder: the call of this number, counted from 1, and those after it if it `lasts`.

    number: 0 lets all pass, which counts them. lasts: as long as the fault is on; removing fails only where the disk is
    read-only. written: names of the calls so far.
    """

    below: Path
    number: int = 0
    error: int = errno.ENOSPC
    lasts: bool = False
    calls: list[str] = field(default_factory=list)

    def hits(self, call: str) -> bool:
        """Counts a call; whether it fails."""
        self.calls.append(call)
        due = len(self.calls) >= self.number > 0 if self.lasts else len(self.calls) == self.number
        return due and not (self.lasts and self.error == errno.ENOSPC and call.startswith(_FREEING))

    def concerns(self, path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        return (Path.cwd() / os.fsdecode(path)).is_relative_to(self.below)

    def raised(self, path: object) -> OSError:
        return OSError(self.error, os.strerror(self.error), os.fsdecode(path) if path else None)  # type: ignore[arg-type]


_active: list[Fault] = []
_hooked: list[bool] = []


def _on_audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _active:
        return
    (fault,) = _active
    if event == "open":
        path, mode, flags = arguments
        if isinstance(mode, str) and not set(mode) & set("wax+"):
            return
        if not (isinstance(flags, int) and flags & _WRITING):
            return
    elif event in _CHANGES:
        path = arguments[0]
    else:
        return
    if fault.concerns(path) and fault.hits(f"{event} {Path(os.fsdecode(path)).name}"):
        raise fault.raised(path)


@contextmanager
def failing(fault: Fault) -> Iterator[Fault]:
    """Within, calls of Python that change the disk fail as the fault says."""
    if not _hooked:
        sys.addaudithook(_on_audit)  # for good: there is no taking it off
        _hooked.append(True)
    opened, synced = io.open, os.fsync

    def opening(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        stream = opened(file, mode, *arguments, **named)
        if not set(mode) & set("wax+") or not fault.concerns(file):
            return stream
        if fault.hits(f"write {Path(os.fsdecode(file)).name}"):
            full = os.open(FULL, os.O_WRONLY)
            os.dup2(full, stream.fileno())
            os.close(full)
        return stream

    def syncing(descriptor: Any) -> None:
        if fault.hits("fsync"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        synced(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        for module in (io, builtins):
            patch.setattr(module, "open", opening)
        patch.setattr(os, "fsync", syncing)
        _active.append(fault)
        try:
            yield fault
        finally:
            _active.clear()


def require_whole(folder: Path) -> None:
    """Every file that has its final name holds what it should: it parses, loads, or passes SQLite's own check."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(_unfinished(part) for part in path.relative_to(folder).parts):
            check = _CHECKS.get(path.suffix)
            if check is not None:
                check(path)


def unfinished(folder: Path) -> list[Path]:
    """What was being written when something failed."""
    return [path for path in folder.rglob("*") if _unfinished(path.name)]


def _unfinished(name: str) -> bool:
    return name.endswith((".partial", "-journal", ".tmp")) or name.startswith(("unfinished-", ".tmp"))


def _json(path: Path) -> None:
    content = path.read_bytes()
    json.loads(content.partition(b"\n")[2] if path.name == "account.json" else content)


def _lines(path: Path) -> None:
    lines = path.read_text().split("\n")
    for line in lines[:-1]:
        json.loads(line)


def _database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def _page(path: Path) -> None:
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")


def _picture(path: Path) -> None:
    assert path.read_bytes().endswith(b"IEND\xaeB`\x82")


_CHECKS: dict[str, Callable[[Path], object]] = {
    ".json": _json,
    ".jsonl": _lines,
    ".safetensors": load_file,
    ".sqlite": _database,
    ".arrow": map_columns,
    ".html": _page,
    ".png": _picture,
}


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A tmpfs of so many bytes on a folder; False where this user may not mount one."""
    folder.mkdir(exist_ok=True)
    if os.system(f"mount -t tmpfs -o size={size} tmpfs '{folder}' 2>/dev/null"):
        yield False
        return
    try:
        yield True
    finally:
        os.system(f"umount -l '{folder}'")


@contextmanager
def read_only(folder: Path) -> Iterator[bool]:
    """The folder mounted upon itself, read-only; False where this user may not."""
    if os.system(f"mount --bind '{folder}' '{folder}' 2>/dev/null"):
        yield False
        return
    try:
        yield os.system(f"mount -o remount,ro,bind '{folder}'") == 0
    finally:
        os.system(f"umount -l '{folder}'")


def free_pages(folder: Path) -> int:
    """How many pages a tmpfs has left."""
    return os.statvfs(folder).f_bavail


def fill(folder: Path, pages_left: int) -> None:
    """Fills a tmpfs with a file, up to so many pages."""
    filler = folder / "filler"
    with suppress(FileNotFoundError):
        filler.unlink()
    size = (free_pages(folder) - pages_left) * os.statvfs(folder).f_frsize
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    os.posix_fallocate(descriptor, 0, size)
    os.close(descriptor)
