"""The settings of a run that is to go on, and what of them may be another than before."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltlm.config.judge_words import is_own_code
from tiltlm.config.own_loss import UnreadLoss
from tiltlm.config.recipes import Recipe, recorded_recipe
from tiltlm.config.round_stages import in_rounds
from tiltlm.config.sections import Config
from tiltlm.config.suggestions import nearest
from tiltlm.config.tables import config_from_dict, option_names, settings_of_run
from tiltlm.errors import ConfigError, RunError
from tiltlm.objectives.own_file import GIVEN
from tiltlm.runs.earlier_stages import RECIPE, whole_run
from tiltlm.runs.folder import ROUNDS, STAGES, is_foreign, is_run
from tiltlm.runs.schema import SCHEMA_KEY, NewerSchemaError, require_known

JUDGES = ("comparison.reward", "rounds.judge")
"""Options that name a judge of answers."""
PARTS = ("data", "model", "reference", "objective")
"""What may be allowed to be another besides options: what is read, whatever the settings call it."""


@dataclass(frozen=True, slots=True)
class Resume:
    """A run that is to go on, and the names of what may be another than before: parts and options."""

    run: Path
    allowed: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Names may be written as flags are.

        Raises:
            ConfigError: there is nothing of such a name; the message names the one that was probably meant.
        """
        object.__setattr__(self, "allowed", frozenset(name.lstrip("-").replace("-", "_") for name in self.allowed))
        known = [*PARTS, *option_names()]
        for name in sorted(self.allowed - set(known)):
            near = nearest(name, known)
            meant = f"Did you mean `{near}`?" if near else f"It takes {', '.join(PARTS)}, or names of options."
            raise ConfigError(f"there is no `{name}` that could be allowed. {meant}")


def settings_to_resume(run: Path) -> Config:
    """The settings that a run was made with, but that code of a model is to be trusted: its folder may be somebody
    else's, so that is named again (and compared, as every setting is).

    Raises:
        RunError: there is no run.
        ConfigError: its settings cannot be read.
    """
    if not run.is_dir():
        raise RunError(f"there is no run in {run} to go on with: give the folder of one, such as runs/NAME.")
    if (whole := whole_run(run)) != run:  # also of a checkpoint
        raise RunError(f"{run} lies in a run: give the run, {whole}.")
    settings = None if is_foreign(run) else settings_of_run(run / "config.json")
    if settings is None:
        why = "it ended before its work began" if is_run(run) else "it is no run"
        raise RunError(f"there is nothing to go on from in {run}: {why}. Start one with tiltlm train.")
    model = dataclasses.replace(settings.model, trust_remote_code=False)
    return in_place_of(run, dataclasses.replace(settings, model=model))


def recipe_to_resume(run: Path, named: Collection[str] = ()) -> Recipe:
    """The recipe that a run was made by, or, where it has no stages, its settings; as `settings_to_resume`.

    named: the options that are given again, for all stages alike.

    Raises:
        RunError: there is no run.
        ConfigError: its settings cannot be read; or answers are judged by a Python file that is not named again.
    """
    if not made_of_stages(run):
        recipe = Recipe(settings_to_resume(run))
        _require_judges_named(run, recipe, named)
        return recipe
    recipe = kept_recipe(run)
    _require_judges_named(run, recipe, named)
    model = dataclasses.replace(recipe.base.model, trust_remote_code=False)
    return recipe.over(dataclasses.replace(recipe.base, model=model))


def made_of_stages(run: Path) -> bool:
    """Whether a run was made by a recipe."""
    return is_run(run) and (run / RECIPE).is_file()


def kept_recipe(run: Path) -> Recipe:
    """The recipe that a run of stages was made by, in the place where the run is.

    Raises:
        ConfigError: it cannot be read.
    """
    kept = run / RECIPE
    try:
        table = json.loads(kept.read_bytes())
        require_known(table.pop(SCHEMA_KEY, None))
        recipe = recorded_recipe(table)
    except (OSError, ValueError, AttributeError, NewerSchemaError, ConfigError) as error:
        raise ConfigError(f"{kept}: {error}") from error
    return in_rounds(recipe.over(in_place_of(run, recipe.base)))


def _require_judges_named(run: Path, recipe: Recipe, named: Collection[str]) -> None:
    """Refuses to run a Python file that judges answers because a run's files name it: they may be somebody else's.

    named: the options that are given again.

    Raises:
        ConfigError: telling how to name it.
    """
    for option in JUDGES:
        section, _, name = option.partition(".")
        of_stages = [one for one in recipe.stages if one.name in recipe.stages_that_set(option)]
        words = [(getattr(getattr(one.settings(recipe.base), section), name), True) for one in of_stages]
        words += [] if option in named else [(getattr(getattr(recipe.base, section), name), False)]
        if found := next(((word, staged) for word, staged in words if word and is_own_code(word)), None):
            word, staged = found
            say = f"--{option.replace('_', '-')} {word}"
            if staged:
                say = f"tiltlm train FILE.toml --resume {run}, with your file of the stages,"
            raise ConfigError(
                f"the answers of the run in {run} are judged by a Python file, `{word}`, whose code is run only "
                f"where it is named: say {say} if you trust it."
            )


def require_named(run: Path, recipe: Recipe) -> None:
    """Refuses to run an objective's code because a run's files name it: they may be somebody else's.

    Raises:
        ConfigError: telling how to name it.
    """
    for loss in [stage.settings(recipe.base).loss for stage in recipe.stages] or [recipe.base.loss]:
        if isinstance(loss, UnreadLoss):
            say = "tiltlm.train(..., objective=...)" if loss.name.startswith(GIVEN) else f"--loss.name {loss.name}"
            if recipe.stages:
                say = f"tiltlm train FILE.toml --resume {run}, with your file of the stages,"
            raise ConfigError(
                f"the run in {run} was trained with an objective of a user's own, `{loss.name}`, whose code is run "
                f"only where it is named: say {say} if you trust it."
            )


def in_place_of(run: Path, settings: Config) -> Config:
    """The settings with the name and the place that a run has, whatever it was called when it began, and with the
    model of the stage before it where that is found with it."""
    where = run if run.name not in ("", "..") else run.resolve()
    here = dataclasses.replace(settings.run, name=where.name, directory=str(where.parent), overwrite=False)
    moved = dataclasses.replace(settings, run=here)
    if (pairs := pairs_of_round(settings)) is not None:
        source = dataclasses.replace(settings.data.source[0], path=str(whole_run(where) / pairs))
        moved = dataclasses.replace(moved, data=dataclasses.replace(moved.data, source=(source,)))
    left = left_by_stage_before(settings)
    if left is not None and (where.parent.name != STAGES or whole_run(where) != where):
        moved = dataclasses.replace(moved, model=dataclasses.replace(moved.model, path=str(_stages_of(moved) / left)))
    return moved


def pairs_of_round(settings: Config) -> Path | None:
    """Where the pairs of a round are that these settings are of, seen from the whole run; None of other settings."""
    if not settings.rounds.count or not settings.data.source:
        return None
    path = Path(settings.data.source[0].path)
    return Path(ROUNDS, path.parent.name, path.name)


def left_by_stage_before(settings: Config) -> Path | None:
    """Where the stage before left the model that these settings begin with, seen from the folder of stages; None where
    it is a model from elsewhere."""
    stages, path = _stages_of(settings), Path(settings.model.path)
    return path.relative_to(stages) if path.is_relative_to(stages) else None


def _stages_of(settings: Config) -> Path:
    """The folder of stages of the run that these settings are of, which may be a stage itself."""
    directory = Path(settings.run.directory)
    return directory if directory.name == STAGES else directory / settings.run.name / STAGES


def settings_in_place(run: Path, table: Mapping[str, Any]) -> Config:
    """The settings that a run's files hold, in the place where the run is.

    Raises:
        ConfigError: they are no settings.
    """
    return in_place_of(run, config_from_dict(table))
