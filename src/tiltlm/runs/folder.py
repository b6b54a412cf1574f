"""A run's folder: made without overwriting anything else, and written file by file."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltlm.errors import RunError
from tiltlm.runs.lock import require_idle
from tiltlm.runs.schema import versioned
from tiltlm.storage.whole_files import written_whole
from tiltlm.text.masking import masked_values

STAGES = "stages"
"""The folder in a run of several stages that holds all but the last of them, each a run of its own."""
ROUNDS = "rounds"
"""The folder in a run of rounds that keeps, for each, the answers, what the judge said, and the pairs."""
MARKER = ".tiltlm-run"
"""The file by which a run's folder is known, written before any other. A folder without it is never removed."""
_MARKER_TEXT = "A run of tiltlm. `tiltlm train --run.overwrite` replaces folders that hold this file, and no others.\n"
# Records that hold settings or the command line, in which an address or a flag may carry a secret.
_MASKED_FILES = frozenset(
    {"config.json", "environment.json", "outcome.json", "summary.json", "recipe.json", "sweep.json"}
)
_SETTINGS_SECTIONS = frozenset({"run", "model", "data", "loss", "training"})


@dataclass(frozen=True, slots=True)
class RunFolder:
    """`DIRECTORY/NAME` and the files in it."""

    path: Path

    @staticmethod
    def require_free(directory: Path, name: str, overwrite: bool) -> None:
        """Says at once whether `create` would refuse, before any work is done.

        A run that ended before its work (it has the marker but no metrics, model, stages or rounds) is in nobody's way.

        Raises:
            RunError: a run of this name exists and `overwrite` is off, the folder holds something else, lies within
                another run or cannot be made.
        """
        path = directory / name
        _require_placeable(path)
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return
        if not is_run(path):
            raise RunError(
                f"{path} holds something that is not a run of this version (it has no file {MARKER}), so it is not "
                "replaced: give this run another name (--run.name), or remove that yourself."
            )
        if not overwrite and any((path / name).exists() for name in ("metrics.jsonl", "model", STAGES, ROUNDS)):
            raise RunError(
                f"there is a run in {path} already: give this one another name (--run.name), or replace that one "
                "(--run.overwrite)."
            )
        require_idle(path)

    @staticmethod
    def create(directory: Path, name: str, overwrite: bool) -> RunFolder:
        """Makes the folder; an earlier run of this name is removed once the new folder is there.

        Raises:
            RunError: as `require_free`, or the folder cannot be made.
        """
        RunFolder.require_free(directory, name, overwrite)
        path = directory / name
        earlier = path.with_name(f".{name}.replaced-{secrets.token_hex(4)}")
        replaces = is_run(path)
        try:
            if replaces:
                path.rename(earlier)
            try:
                path.mkdir(parents=True, exist_ok=True)
                # Exclusively: of two programs that start at once, one is refused.
                with (path / MARKER).open("x", encoding="utf-8") as file:
                    file.write(_MARKER_TEXT)
            except OSError as error:
                if replaces and not isinstance(error, FileExistsError):
                    _put_back(earlier, path, error)
                raise
        except FileExistsError as error:
            raise RunError(f"another run was started in {path} just now: give this one another name.") from error
        except OSError as error:
            raise _cannot_make(path, error.strerror or str(error)) from error
        if replaces:
            _remove(earlier)
        return RunFolder(path)

    def stage(self, name: str) -> RunFolder:
        """The folder of an earlier stage of this run, made if it is not there."""
        path = self.path / STAGES / name
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / MARKER).write_text(_MARKER_TEXT, encoding="utf-8")
        except OSError as error:
            raise _cannot_make(path, error.strerror or str(error)) from error
        return RunFolder(path)

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def write_json(self, name: str, content: Any) -> None:
        """Writes a dataclass or plain value; a reader sees the old file or the whole new one, never half.

        What has keys gets the version of its schema among them.
        """
        is_record = dataclasses.is_dataclass(content) and not isinstance(content, type)
        value = dataclasses.asdict(content) if is_record else content
        if isinstance(value, Mapping):
            value = versioned(value)
        if name in _MASKED_FILES:
            value = masked_values(value)
        text = json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"
        with written_whole(self.path / name) as file:
            # Half a surrogate pair, as in a file name that is not UTF-8, becomes JSON's own escape of it.
            file.write_text(text, encoding="utf-8", errors="backslashreplace")


def is_run(path: Path) -> bool:
    """Whether the folder was made by `RunFolder.create`. A link to one is not followed."""
    return path.is_dir() and not path.is_symlink() and (path / MARKER).is_file()


def require_apart(path: Path, reads: Mapping[str, Path]) -> None:
    """Holds a run's folder and what the run reads apart: a folder that is replaced must hold nothing of the user's.

    path: the run's folder, there or not.
    reads: the places the run reads, by the option that names each. Links are followed.

    Raises:
        RunError: the folder contains, is or lies in one of them; both paths are named.
    """
    folder = path.resolve()
    for option, given in reads.items():
        place = given.expanduser().resolve()
        if not place.exists():
            continue
        relation = _relation(folder, place)
        if relation:
            raise RunError(
                f"the run's folder {folder} {relation} {place}, which the run reads ({option}): "
                "choose another --run.directory or --run.name."
            )


def free_name(directory: Path, name: str) -> str:
    """The name itself where `create` would take it, else the first of NAME-2, NAME-3, ... that is free."""
    number = 1
    taken = name
    while True:
        try:
            RunFolder.require_free(directory, taken, overwrite=False)
        except RunError:
            if not (directory / taken).exists() and not (directory / taken).is_symlink():
                return taken  # not the name is in the way, and what is will be said when the folder is made
            number += 1
            taken = f"{name}-{number}"
        else:
            return taken


def is_foreign(path: Path) -> bool:
    """Whether the folder is told by its `config.json` to be something else than a run, such as a model."""
    try:
        content = json.loads((path / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return not is_run(path) and not (isinstance(content, dict) and content.keys() & _SETTINGS_SECTIONS)


def runs_in(directory: Path) -> list[Path]:
    """The runs in a folder, newest first; also those of earlier versions, which have no marker."""
    runs = [path for path in directory.iterdir() if _looks_like_a_run(path)] if directory.is_dir() else []
    return sorted(runs, key=lambda run: (run / "config.json").stat().st_mtime, reverse=True)


def _looks_like_a_run(path: Path) -> bool:
    settings = path / "config.json"
    if path.name.startswith(".") or not settings.is_file():
        return False
    if (path / MARKER).is_file():
        return True
    try:
        content = json.loads(settings.read_bytes())
    except (OSError, ValueError):
        return False
    return (path / "metrics.jsonl").is_file() and isinstance(content, dict) and content.keys() >= _SETTINGS_SECTIONS


def _relation(folder: Path, place: Path) -> str | None:
    """How a run's folder lies to a place that exists; compared by file too, for names may differ in case alone."""
    if _same(folder, place):
        return "is"
    if any(_same(parent, place) for parent in folder.parents):
        return "lies in"
    if any(_same(folder, parent) for parent in place.parents):
        return "contains"
    return None


def _same(one: Path, other: Path) -> bool:
    return one == other or (one.exists() and other.exists() and one.samefile(other))


def _require_placeable(path: Path) -> None:
    if path.is_symlink():
        raise _cannot_make(path, f"it is a symbolic link to {path.resolve()}")
    real = path.resolve()
    within = next((parent for parent in real.parents if is_run(parent)), None)
    if within is not None:
        raise _cannot_make(path, f"it would lie within another run, {within}; choose another --run.directory")
    there = next(place for place in (real, *real.parents) if place.exists())
    if there != real and not there.is_dir():
        raise _cannot_make(path, f"{there} is not a directory; choose another --run.directory")
    if not os.access(there, os.W_OK):
        raise _cannot_make(path, f"{there} may not be written; choose another --run.directory")


def _put_back(earlier: Path, path: Path, error: OSError) -> None:
    """Gives an earlier run its name again, which a new one could not take.

    Raises:
        RunError: that cannot be done either; the message says where it is.
    """
    try:
        with suppress(OSError):
            (path / MARKER).unlink(missing_ok=True)
            path.rmdir()
        earlier.rename(path)
    except OSError as also:
        raise _cannot_make(path, f"{error.strerror or error}; the earlier run is whole, and in {earlier}") from also


def _remove(earlier: Path) -> None:
    try:
        shutil.rmtree(earlier)
    except OSError as error:
        raise RunError(
            f"the earlier run was moved to {earlier} and cannot be removed: {error.strerror or error}. "
            "Remove it yourself, and start again."
        ) from error


def _cannot_make(path: Path, why: str) -> RunError:
    return RunError(f"cannot make the run's folder {path}: {why}.")
