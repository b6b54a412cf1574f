"""A run's folder: made without overwriting another, and written file by file."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltlm.errors import RunError


@dataclass(frozen=True, slots=True)
class RunFolder:
    """`DIRECTORY/NAME` and the files in it."""

    path: Path

    @staticmethod
    def require_free(directory: Path, name: str, overwrite: bool) -> None:
        """Says at once whether `create` would refuse, before any work is done.

        A run that ended before it trained (it has settings but no metrics) is in nobody's way.

        Raises:
            RunError: a run of this name exists and `overwrite` is off, or the folder holds something else.
        """
        path = directory / name
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return
        began = (path / "metrics.jsonl").exists() or not (path / "config.json").is_file()
        if not overwrite and began:
            raise RunError(
                f"there is a run in {path} already: give this one another name (--run.name), or replace that one "
                "(--run.overwrite)."
            )
        if not (path / "config.json").is_file():
            raise RunError(f"{path} holds something that is not a run, so it is not replaced: remove it yourself.")

    @staticmethod
    def create(directory: Path, name: str, overwrite: bool) -> RunFolder:
        """Makes the folder; an earlier run of this name is removed now, if that was asked for.

        Raises:
            RunError: as `require_free`, or the folder cannot be made.
        """
        RunFolder.require_free(directory, name, overwrite)
        path = directory / name
        try:
            if path.exists():
                shutil.rmtree(path)
            path.mkdir(parents=True)
        except OSError as error:
            raise RunError(f"cannot make the run's folder {path}: {error.strerror or error}.") from error
        return RunFolder(path)

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def write_json(self, name: str, content: Any) -> None:
        """Writes a dataclass or plain value; a reader sees the old file or the whole new one, never half."""
        is_record = dataclasses.is_dataclass(content) and not isinstance(content, type)
        value = dataclasses.asdict(content) if is_record else content
        temporary = self.path / f".{name}.partial"
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
        temporary.replace(self.path / name)


def newest_run(directory: Path) -> Path:
    """The run in `directory` that was written last.

    Raises:
        RunError: there is none.
    """
    runs = [config.parent for config in directory.glob("*/config.json")]
    if not runs:
        raise RunError(f"there is no run in {directory}: train one with `tiltlm train`, or give a run's folder.")
    return max(runs, key=lambda run: (run / "config.json").stat().st_mtime)
