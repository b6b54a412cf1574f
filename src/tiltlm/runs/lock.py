"""One process at a time works on a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tiltlm.errors import RunError

LOCK = ".lock"
"""The file in a run's folder that is locked; the system unlocks it when its process ends, however it does."""


@contextmanager
def locked(run: Path, what: str = "run") -> Iterator[None]:
    """Within, no other process works on the run, or on what else lies in that folder.

    Raises:
        RunError: one does already.
    """
    lock = FileLock(run / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(
            f"another process is at work on the {what} in {run}: wait until it has ended, or leave that {what} to it."
        ) from error
    try:
        yield
    finally:
        lock.release()


def require_idle(run: Path) -> None:
    """Makes sure that no process works on a run, without a trace in its folder.

    Raises:
        RunError: one does.
    """
    if (run / LOCK).exists():
        with locked(run):
            pass
