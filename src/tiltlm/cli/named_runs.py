"""Runs as a command line names them."""

from __future__ import annotations

from pathlib import Path

from tiltlm.errors import RunError

RUNS = Path("runs")


def existing_run(run: Path) -> Path:
    """The run's folder as given; a bare name of one in runs/ is told from a folder that is not there.

    Raises:
        RunError: there is no such folder, but such a run.
    """
    if not run.exists() and (RUNS / run).is_dir():
        raise RunError(f"there is no folder {run}. Did you mean {RUNS / run}?")
    return run


def is_folder(text: str) -> bool:
    """Whether a text names a folder that is there."""
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):  # too long for a name, or with a character that none may have
        return False
