"""The settings of a run that is to go on, and what of them may be another than before."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from tiltlm.config.own_loss import UnreadLoss
from tiltlm.config.recipes import Recipe, recorded_recipe
from tiltlm.config.sections import Config
from tiltlm.config.suggestions import nearest
from tiltlm.config.tables import option_names, settings_of_run
from tiltlm.errors import ConfigError, RunError
from tiltlm.objectives.own_file import GIVEN
from tiltlm.runs.earlier_stages import RECIPE
from tiltlm.runs.folder import is_foreign, is_run
from tiltlm.runs.schema import SCHEMA_KEY, NewerSchemaError, require_known

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
    if is_run(run.parent.parent):  # a checkpoint
        raise RunError(f"{run} lies in a run: give the run, {run.parent.parent}.")
    settings = None if is_foreign(run) else settings_of_run(run / "config.json")
    if settings is None:
        why = "it ended before its work began" if is_run(run) else "it is no run"
        raise RunError(f"there is nothing to go on from in {run}: {why}. Start one with tiltlm train.")
    model = dataclasses.replace(settings.model, trust_remote_code=False)
    return in_place_of(run, dataclasses.replace(settings, model=model))


def recipe_to_resume(run: Path) -> Recipe:
    """The recipe that a run was made by, or, where it has no stages, its settings; as `settings_to_resume`.

    Raises:
        RunError: there is no run.
        ConfigError: its settings cannot be read.
    """
    kept = run / RECIPE
    if not is_run(run) or not kept.is_file():
        return Recipe(settings_to_resume(run))
    try:
        table = json.loads(kept.read_bytes())
        require_known(table.pop(SCHEMA_KEY, None))
        recipe = recorded_recipe(table)
    except (OSError, ValueError, AttributeError, NewerSchemaError, ConfigError) as error:
        raise ConfigError(f"{kept}: {error}") from error
    base = dataclasses.replace(recipe.base, model=dataclasses.replace(recipe.base.model, trust_remote_code=False))
    return recipe.over(in_place_of(run, base))


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
    """The settings with the name and the place that a run has, whatever it was called when it began."""
    where = run if run.name not in ("", "..") else run.resolve()
    return dataclasses.replace(
        settings,
        run=dataclasses.replace(settings.run, name=where.name, directory=str(where.parent), overwrite=False),
    )
