"""How rounds end before their last one: the round that was trained last becomes the run itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tiltlm.config.recipes import Recipe
from tiltlm.config.round_stages import in_rounds
from tiltlm.pipeline.run_record import conclude
from tiltlm.report.page import write_report
from tiltlm.runs.earlier_stages import RECIPE
from tiltlm.runs.folder import MARKER, ROUNDS, STAGES, RunFolder
from tiltlm.runs.lock import LOCK
from tiltlm.runs.outcomes import Summary
from tiltlm.runs.run_files import read_run

ENDED = "ended.json"
"""The file among those of rounds that says after how many they ended, and why; written before anything is moved."""


def cut_short(recipe: Recipe) -> Recipe:
    """The recipe with the rounds that there were, if the run in its place ended before its last one."""
    run = Path(recipe.base.run.directory) / recipe.base.run.name
    ended = run / ROUNDS / ENDED
    if not recipe.base.rounds.count or not ended.is_file():
        return recipe
    rounds = int(json.loads(ended.read_bytes())["rounds"])
    return in_rounds(Recipe(recipe.base, recipe.stages[:rounds] or in_rounds(recipe).stages[:rounds]))


def end_after(whole: RunFolder, recipe: Recipe, place: int, why: str) -> Summary:
    """Ends the rounds after one, counted from 0: its files go to where those of the last one belong.

    Killed in the middle, it is done again from there by `finish_ending`.
    """
    RunFolder(whole.path / ROUNDS).write_json(ENDED, {"rounds": place + 1, "why": why})
    return finish_ending(whole, Recipe(recipe.base, recipe.stages[: place + 1]))


def finish_ending(whole: RunFolder, recipe: Recipe) -> Summary:
    """Moves what is still in the folder of the last stage. recipe: cut short already."""
    last = len(recipe.stages) - 1
    folder = whole.path / STAGES / f"{last + 1}-{recipe.stages[last].name}"
    if folder.is_dir():
        (folder / MARKER).unlink(missing_ok=True)  # from here on it is no earlier stage
        for one in sorted(folder.iterdir()):
            if one.name != LOCK:
                one.replace(whole.path / one.name)
        shutil.rmtree(folder)
    stages = whole.path / STAGES
    if stages.is_dir() and not any(stages.iterdir()):
        stages.rmdir()
    whole.write_json(RECIPE, recipe.to_dict())
    settings = read_run(whole.path).settings
    here = {"name": recipe.base.run.name, "directory": recipe.base.run.directory}
    whole.write_json("config.json", {**settings, "run": {**settings["run"], **here}})
    summary = conclude(whole)
    write_report(whole.path)
    return summary
