"""A recipe: its stages one after another, each a whole run that begins with the model of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from tiltlm.config import Config
from tiltlm.config.own_loss import UnreadLoss
from tiltlm.config.recipes import Recipe
from tiltlm.config.resuming import Resume, kept_recipe, made_of_stages
from tiltlm.config.validation import places_read, ready
from tiltlm.distributed.joining import joined
from tiltlm.distributed.ranks import Ranks
from tiltlm.errors import ConfigError, RunError, TiltlmError
from tiltlm.pipeline.own_objective import say_tried
from tiltlm.pipeline.preflight import prepare_model
from tiltlm.pipeline.prepare import NOTHING, Given, prepare
from tiltlm.pipeline.ranks_at_work import DATA_REPORT, begun_before, begun_by_this_job, sign
from tiltlm.pipeline.reporter import LogReporter, Reporter
from tiltlm.pipeline.resumption import effective_settings, not_as_it_began
from tiltlm.pipeline.run import Run, train
from tiltlm.pipeline.setup import set_up
from tiltlm.runs.earlier_stages import RECIPE
from tiltlm.runs.folder import RunFolder, require_apart
from tiltlm.runs.lock import locked
from tiltlm.training.observers import Observer


def train_recipe(
    recipe: Recipe,
    command: Sequence[str],
    reporter: Reporter,
    observers: tuple[Observer, ...] = (),
    given: Given = NOTHING,
    resume: Resume | None = None,
    auto_resume: bool = False,
) -> Run:
    """Trains a recipe's stages, or, where it has none, once in its settings.

    The last stage is the run itself: its model and report are those of the whole. The others are runs in a folder of
    it. A stage that does not come to its end is the last one trained, and `resume` goes on with it.

    Args:
        command, observers, given, resume: see `pipeline.run.train`; rows in memory are those of every stage.
        auto_resume: goes on with the run of this name and place where it was begun.

    Returns:
        The stage that was trained last.

    Raises:
        TiltlmError: with what is wrong and how to mend it. What can be known of later stages is known before the first.
    """
    recipe = recipe.ready()
    if auto_resume and (resume is not None or recipe.base.run.overwrite):
        raise ConfigError(
            "auto-resume goes on with the run of this name, where it was begun: --resume names another, and "
            "run.overwrite replaces it. Leave one of them out."
        )
    with joined(recipe.base.distributed, recipe.base.model.device) as ranks:
        run = Path(recipe.base.run.directory) / recipe.base.run.name
        resume = resume or ranks.from_first(lambda: begun_before(run) if auto_resume else begun_by_this_job(run))
        if resume is not None:
            _require_same_stages(recipe, resume)
        if not recipe.stages:
            return train(recipe.base, command, reporter, observers, given, resume)
        return _train_stages(
            recipe, command, reporter if ranks.first else LogReporter(), observers, given, resume, ranks
        )


def _train_stages(
    recipe: Recipe,
    command: Sequence[str],
    reporter: Reporter,
    observers: tuple[Observer, ...],
    given: Given,
    resume: Resume | None,
    ranks: Ranks,
) -> Run:
    settings = [ready(recipe.settings(number)) for number in range(len(recipe.stages))]
    with ranks.first_then_others():
        for number, (name, config) in enumerate(recipe.seen_from_the_start(), start=1):
            if number > 1:
                reporter.say(f"Looking ahead at the data of stage {number}, {name}")
                _look_ahead(config, f"stage `{name}`", given, reporter)
    whole = _whole(recipe, settings, resume) if ranks.first else None
    for number, (stage, config) in enumerate(zip(recipe.stages, settings, strict=True)):
        reporter.say(f"Stage {number + 1} of {len(settings)}: {stage.name} (objective `{config.loss.name}`)")
        folder = recipe.folder(number)
        begun = ranks.agreed((folder / DATA_REPORT).is_file())
        goes_on = Resume(folder, resume.allowed if resume is not None else frozenset()) if begun else None
        last = number + 1 == len(settings)
        made = whole if whole is None or last else whole.stage(folder.name)
        # The last stage holds the whole run itself.
        with nullcontext() if whole is None or last else locked(whole.path):
            run = train(config, command, reporter, observers, given, goes_on, made)
        if not run.summary.completed:
            break
        reporter.say("")
    return run


def _require_same_stages(recipe: Recipe, resume: Resume) -> None:
    """Compares the stages that a run was made with, those that have not begun too, with those it is to go on with.

    Raises:
        RunError: there are others, or one has a setting that is another and was not allowed to be.
    """
    staged = made_of_stages(resume.run)
    kept = kept_recipe(resume.run) if staged else Recipe(recipe.base)
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


def _whole(recipe: Recipe, settings: Sequence[Config], resume: Resume | None) -> RunFolder:
    """The folder of the whole run, with the recipe in it."""
    run = recipe.base.run
    if resume is not None:
        folder = RunFolder(resume.run)
        if recipe.to_dict() != kept_recipe(resume.run).to_dict():
            with locked(folder.path):
                folder.write_json(RECIPE, recipe.to_dict())
        return folder
    for number, config in enumerate(settings):
        reads = places_read(config)
        if number:
            del reads["model.path"]  # the stage before leaves it there
        require_apart(Path(run.directory) / run.name, reads)
    folder = RunFolder.create(Path(run.directory), run.name, run.overwrite)
    folder.write_json(RECIPE, recipe.to_dict())
    sign(folder)
    return folder


def _look_ahead(config: Config, what: str, given: Given, reporter: Reporter) -> None:
    """Tries a later stage's objective, and reads its data with the first model's tokenizer, so that what is wrong with
    them is known now.

    config: the stage's, seen from the start. what: the stage in words.

    Raises:
        TiltlmError: as `prepare`, naming the stage.
    """
    try:
        say_tried(config.loss, reporter)
        prepare_model(config, reporter)
        prepare(set_up(config), LogReporter(), given)
    except TiltlmError as error:
        raise type(error)(f"{what}: {error}") from error
