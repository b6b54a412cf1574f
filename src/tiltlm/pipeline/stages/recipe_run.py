"""A recipe: its stages one after another, each a whole run that begins with the model of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from tiltlm.config import Config
from tiltlm.config.recipes import Recipe
from tiltlm.config.resuming import Resume
from tiltlm.config.round_stages import in_rounds
from tiltlm.config.validation import ready
from tiltlm.distributed.joining import joined
from tiltlm.distributed.ranks import Ranks
from tiltlm.errors import ConfigError, TiltlmError
from tiltlm.pipeline.own_objective import say_tried
from tiltlm.pipeline.preflight import prepare_model
from tiltlm.pipeline.prepare import NOTHING, Given, prepare
from tiltlm.pipeline.ranks_at_work import DATA_REPORT, begun_before, begun_by_this_job
from tiltlm.pipeline.reporter import LogReporter, Reporter
from tiltlm.pipeline.run import Run, train
from tiltlm.pipeline.setup import set_up
from tiltlm.pipeline.stages.recipe_folder import require_same_stages, whole_folder
from tiltlm.pipeline.stages.rounds_end import cut_short
from tiltlm.pipeline.stages.rounds_run import train_rounds
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
    recipe = in_rounds(recipe).ready()
    if auto_resume and (resume is not None or recipe.base.run.overwrite):
        raise ConfigError(
            "auto-resume goes on with the run of this name, where it was begun: --resume names another, and "
            "run.overwrite replaces it. Leave one of them out."
        )
    with joined(recipe.base.distributed, recipe.base.model.device) as ranks:
        run = Path(recipe.base.run.directory) / recipe.base.run.name
        resume = resume or ranks.from_first(lambda: begun_before(run) if auto_resume else begun_by_this_job(run))
        if resume is not None:
            recipe = cut_short(recipe)
            require_same_stages(recipe, resume)
        if recipe.base.rounds.count:
            _require_alone(ranks, given)
            return train_rounds(recipe, command, reporter, observers, resume)
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
    whole = whole_folder(recipe, settings, resume) if ranks.first else None
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


def _require_alone(ranks: Ranks, given: Given) -> None:
    """Refuses rounds of several processes, or on rows in memory.

    Raises:
        ConfigError: saying what to do.
    """
    if ranks.several:
        raise ConfigError("rounds are of one process: start it without torchrun, or go by hand (tiltlm sample).")
    if given != NOTHING:
        raise ConfigError("rounds read their prompts and held-out pairs from files: name data.train and data.eval.")


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
