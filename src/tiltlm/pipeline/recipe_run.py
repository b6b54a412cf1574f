"""A recipe: its stages one after another, each a whole run that begins with the model of the one before."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tiltlm.config import Config
from tiltlm.config.recipes import Recipe
from tiltlm.config.resuming import Resume
from tiltlm.config.validation import places_read, ready
from tiltlm.errors import TiltlmError
from tiltlm.pipeline.preflight import prepare_model
from tiltlm.pipeline.prepare import NOTHING, Given, prepare
from tiltlm.pipeline.reporter import LogReporter, Reporter
from tiltlm.pipeline.resumption import DATA_REPORT
from tiltlm.pipeline.run import Run, train
from tiltlm.pipeline.setup import set_up
from tiltlm.runs.earlier_stages import RECIPE
from tiltlm.runs.folder import RunFolder, require_apart
from tiltlm.training.observers import Observer


def train_recipe(
    recipe: Recipe,
    command: Sequence[str],
    reporter: Reporter,
    observers: tuple[Observer, ...] = (),
    given: Given = NOTHING,
    resume: Resume | None = None,
) -> Run:
    """Trains a recipe's stages, or, where it has none, once in its settings.

    The last stage is the run itself: its model and report are those of the whole. The others are runs in a folder of
    it. A stage that does not come to its end is the last one trained, and `resume` goes on with it.

    Args:
        command, observers, given, resume: see `pipeline.run.train`; rows in memory are those of every stage.

    Returns:
        The stage that was trained last.

    Raises:
        TiltlmError: with what is wrong and how to mend it. What can be known of later stages is known before the first.
    """
    recipe = recipe.ready()
    if not recipe.stages:
        return train(recipe.base, command, reporter, observers, given, resume)
    settings = [ready(recipe.settings(number)) for number in range(len(recipe.stages))]
    for number, config in enumerate(settings[1:], start=2):
        _look_ahead(config, recipe, number, given, reporter)
    whole = _whole(recipe, settings, resume)
    for number, (stage, config) in enumerate(zip(recipe.stages, settings, strict=True)):
        reporter.say(f"Stage {number + 1} of {len(settings)}: {stage.name} (objective `{config.loss.name}`)")
        folder = recipe.folder(number)
        begun = (folder / DATA_REPORT).is_file()
        goes_on = Resume(folder, resume.allowed if resume is not None else frozenset()) if begun else None
        made = whole if number + 1 == len(settings) else whole.stage(folder.name)
        run = train(config, command, reporter, observers, given, goes_on, made)
        if not run.summary.completed:
            break
        reporter.say("")
    return run


def _whole(recipe: Recipe, settings: Sequence[Config], resume: Resume | None) -> RunFolder:
    """The folder of the whole run, with the recipe in it."""
    run = recipe.base.run
    if resume is not None:
        return RunFolder(resume.run)
    for number, config in enumerate(settings):
        reads = places_read(config)
        if number:
            del reads["model.path"]  # the stage before leaves it there
        require_apart(Path(run.directory) / run.name, reads)
    folder = RunFolder.create(Path(run.directory), run.name, run.overwrite)
    folder.write_json(RECIPE, recipe.to_dict())
    return folder


def _look_ahead(config: Config, recipe: Recipe, number: int, given: Given, reporter: Reporter) -> None:
    """Reads a later stage's data with the first model's tokenizer, so that what is wrong with them is known now.

    Raises:
        TiltlmError: as `prepare`, naming the stage.
    """
    stage = recipe.stages[number - 1]
    first = dataclasses.replace(config, model=recipe.base.model)
    reporter.say(f"Looking ahead at the data of stage {number}, {stage.name}")
    try:
        prepare_model(first, reporter)
        prepare(set_up(first), LogReporter(), given)
    except TiltlmError as error:
        raise type(error)(f"stage `{stage.name}`: {error}") from error
