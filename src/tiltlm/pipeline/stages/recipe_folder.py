"""The folder of a run of several stages, and what it was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tiltlm.config import Config
from tiltlm.config.own_loss import UnreadLoss
from tiltlm.config.recipes import Recipe
from tiltlm.config.resuming import Resume, kept_recipe, made_of_stages
from tiltlm.config.validation import places_read
from tiltlm.errors import RunError
from tiltlm.pipeline.ranks_at_work import sign
from tiltlm.pipeline.resumption import effective_settings, not_as_it_began
from tiltlm.pipeline.stages.rounds_end import cut_short
from tiltlm.runs.earlier_stages import RECIPE
from tiltlm.runs.folder import RunFolder, require_apart
from tiltlm.runs.lock import locked


def require_same_stages(recipe: Recipe, resume: Resume) -> None:
    """Compares the stages that a run was made with, those that have not begun too, with those it is to go on with.

    Raises:
        RunError: there are others, or one has a setting that is another and was not allowed to be.
    """
    staged = made_of_stages(resume.run)
    kept = cut_short(kept_recipe(resume.run)) if staged else Recipe(recipe.base)
    was, now = ([stage.name for stage in one.stages] for one in (kept, recipe))
    if was != now:
        then, given = (", ".join(names) or "none" for names in (was, now))
        raise RunError(
            f"the run in {resume.run} would not go on as it began (stages: {then} then, {given} now). Give it the "
            "stages that it had, or start another run."
        )
    refused = {}
    for number, stage in enumerate(recipe.stages):
        had, has = kept.settings(number), recipe.settings(number)
        before, after = effective_settings(had), effective_settings(has)
        # What a file leaves out of an objective of a user's own is as its code says.
        default = after if isinstance(had.loss, UnreadLoss) and had.loss.name == has.loss.name else {}
        for name in {**before, **after}:
            values = [before.get(name, default.get(name, "none")), after.get(name, "none")]
            if values[0] != values[1] and name not in resume.allowed:
                refused[f"stage `{stage.name}`: {name}: {values[0]} then, {values[1]} now"] = name
    if refused:
        raise not_as_it_began(resume.run, refused)


def whole_folder(recipe: Recipe, settings: Sequence[Config], resume: Resume | None) -> RunFolder:
    """The folder of the whole run, with the recipe in it."""
    run = recipe.base.run
    if resume is not None:
        folder = RunFolder(resume.run)
        if recipe.to_dict() != kept_recipe(resume.run).to_dict():
            with locked(folder.path):
                folder.write_json(RECIPE, recipe.to_dict())
        return folder
    # What rounds read of their own is made in the folder of the run.
    for number, config in enumerate([recipe.base] if recipe.base.rounds.count else settings):
        reads = places_read(config)
        if number:
            del reads["model.path"]  # the stage before leaves it there
        require_apart(Path(run.directory) / run.name, reads)
    folder = RunFolder.create(Path(run.directory), run.name, run.overwrite)
    folder.write_json(RECIPE, recipe.to_dict())
    sign(folder)
    return folder
