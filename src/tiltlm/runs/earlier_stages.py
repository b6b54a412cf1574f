"""The stages of a run before its last one: runs of their own in a folder of it."""

from __future__ import annotations

from pathlib import Path

from tiltlm.runs.folder import STAGES, is_run

RECIPE = "recipe.json"
"""The file in a run of several stages that holds what was asked for: the settings of all, and each stage's own."""


def earlier_stages(run: Path) -> list[tuple[str, Path]]:
    """The names and folders of the stages before the last one, in the order in which they were trained."""
    folder = run / STAGES
    found = [path for path in folder.iterdir() if is_run(path)] if folder.is_dir() else []
    numbered = sorted((int(number), name, path) for path in found for number, _, name in [path.name.partition("-")])
    return [(name, path) for _, name, path in numbered]


def whole_run(place: Path) -> Path:
    """The run that a stage of it, or a checkpoint, lies in; of a run that is whole the place itself."""
    return place.parent.parent if is_run(place.parent.parent) else place
