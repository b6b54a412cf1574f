"""Recipes: several trainings one after another, `[[stage]]` in a file, each beginning with the model the last one left.

What stands outside of the stages holds for all of them; a stage adds options of its own.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tiltlm.config.adapter_config import AdapterConfig
from tiltlm.config.data_sources import OWN_OPTIONS
from tiltlm.config.own_loss import UnreadLoss, read_loss
from tiltlm.config.sections import Config, RunName
from tiltlm.config.suggestions import nearest
from tiltlm.config.tables import config_from_dict, settings_table
from tiltlm.config.validation import ready, with_home
from tiltlm.errors import ConfigError
from tiltlm.runs.folder import STAGES

STAGE = "stage"
"""The key of the list of stages."""
SECTIONS_OF_ALL = ("run", "hub", "model")
"""Sections that hold for the whole recipe, so that no stage has them."""
Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """One training of a recipe: its name, and the options that are its own, by section."""

    name: str
    options: Mapping[str, Mapping[str, Any]]

    def settings(self, base: Config) -> Config:
        """The settings of this stage alone: those of all stages, with its own over them.

        An objective is named with its settings, so a stage's [loss] stands in place of the common one, whole.

        Raises:
            ConfigError: an option is unknown, of the wrong type or out of range; the message names the stage.
        """
        table: dict[str, dict[str, Any]] = settings_table(base)
        for section, options in self.options.items():
            common = _for_other_data(table[section], options) if section == "data" else table.get(section, {})
            table[section] = dict(options) if section == "loss" else {**common, **options}
        try:
            return config_from_dict(table)
        except ConfigError as error:
            raise ConfigError(f"stage `{self.name}`: {error}") from error


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings that hold throughout, and the stages; without any, one training in those settings."""

    base: Config
    stages: tuple[Stage, ...] = ()

    def over(self, base: Config) -> Recipe:
        """The same stages over other common settings."""
        return Recipe(base, self.stages)

    def folder(self, number: int) -> Path:
        """Where a stage keeps its files: the last one in the run's folder itself, the others below it."""
        run = Path(self.base.run.directory) / self.base.run.name
        last = number == len(self.stages) - 1
        return run if last else run / STAGES / f"{number + 1}-{self.stages[number].name}"

    def settings(self, number: int) -> Config:
        """The settings of a stage, counted from 0: its model is the one that the stage before it leaves."""
        own, folder = self.stages[number].settings(self.base), self.folder(number)
        run = dataclasses.replace(self.base.run, name=folder.name, directory=str(folder.parent))
        if number == 0:
            return dataclasses.replace(own, run=run)
        # Rounds that keep their reference are held to the model before all of them.
        kept = self.base.model.path if self.base.rounds.reference == "start" and self._held_to_start(own) else None
        model = dataclasses.replace(own.model, path=str(self.folder(number - 1) / "model"), reference=kept)
        adapter = own.adapter
        if self._adapter_before(number) is not None and adapter.kind != "none":  # said again, as in a common [adapter]
            adapter = AdapterConfig(quantise=adapter.quantise, base_dtype=adapter.base_dtype)
        return dataclasses.replace(own, run=run, model=model, adapter=adapter)

    def _held_to_start(self, own: Config) -> bool:
        """Whether a round has the model before all rounds as its reference, if it is to be kept."""
        loss = own.loss  # the code of a user's own is not run for this
        return bool(self.base.rounds.count) and (isinstance(loss, UnreadLoss) or loss.objective.needs.reference)

    def seen_from_the_start(self) -> list[tuple[str | None, Config]]:
        """The settings of each stage with its name, and with the model that there is before the first, on which the
        adapter that an earlier stage hands on is a new one; those of all under no name where there are no stages."""
        stages = []
        for number, stage in enumerate(self.stages):
            config = ready(self.settings(number))
            before = self._adapter_before(number)
            adapter = config.adapter if before is None else _as_trained_by(before, config.adapter)
            stages.append((stage.name, dataclasses.replace(config, model=self.base.model, adapter=adapter)))
        return [*stages] or [(None, self.base)]

    def _adapter_before(self, number: int) -> AdapterConfig | None:
        """The section [adapter] of the stage that began the adapter which a stage goes on with, if one did."""
        sections = (stage.settings(self.base).adapter for stage in self.stages[:number])
        return next((section for section in sections if section.kind != "none"), None)

    def _require_one_adapter(self, number: int) -> None:
        """Refuses another adapter than the one that a stage is handed, and what cannot be trained with one.

        Raises:
            ConfigError: naming the option and how to mend it.
        """
        before, own = self._adapter_before(number), self.stages[number].settings(self.base)
        if before is None:
            return
        if own.adapter.kind != "none" and _as_trained_by(before, own.adapter) != own.adapter:
            raise ConfigError(
                "adapter: an earlier stage trains an adapter, which this one goes on with, so it has no other kind, "
                "rank, alpha or targets: remove them here, or merge that adapter (tiltlm merge), and train a new one "
                "on what comes of it."
            )
        if read_loss(own.loss).objective.moves is not None:
            raise ConfigError(
                f"`{own.loss.name}` moves its reference towards the policy, weight by weight, and averaging the "
                "factors of the adapter that an earlier stage trains is not averaging weights: train all weights, or "
                "take another objective."
            )

    def stages_that_set(self, option: str) -> list[str]:
        """The names of the stages with a value of their own for `section.option`."""
        section, _, name = option.partition(".")
        return [
            stage.name
            for stage in self.stages
            if section in stage.options and (section == "loss" or name in stage.options[section])
        ]

    def require_common(self, named: Iterable[str]) -> None:
        """Refuses an option given for all stages that one has a value of its own for: which one is meant?

        Raises:
            ConfigError: naming the stage.
        """
        for option in sorted(named):
            if own := self.stages_that_set(option):
                raise ConfigError(f"{option}: the stage `{own[0]}` has its own in the file: change it there.")

    def ready(self) -> Recipe:
        """The recipe with the settings of every stage validated, and a home written out.

        Raises:
            ConfigError: see `validate`; the message names the stage.
        """
        if not self.stages:
            return self.over(ready(self.base))
        whole = self.over(with_home(self.base))
        for number, stage in enumerate(whole.stages):
            try:
                ready(whole.settings(number))
                whole._require_one_adapter(number)
            except ConfigError as error:
                raise ConfigError(f"stage `{stage.name}`: {error}") from error
        return whole

    def to_dict(self) -> dict[str, Any]:
        """As nested tables, which `recorded_recipe` reads."""
        return {**settings_table(self.base), STAGE: [{"name": one.name, **one.options} for one in self.stages]}


def _for_other_data(common: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """The common options of [data] for a stage with data of its own: those that say where the common data are, and how
    they are laid out, are of the others."""
    if "source" in own:
        return {name: value for name, value in common.items() if name not in ("train", *OWN_OPTIONS.values())}
    return {name: value for name, value in common.items() if name != "source" or "train" not in own}


def _as_trained_by(before: AdapterConfig, own: AdapterConfig) -> AdapterConfig:
    """An adapter of an earlier stage on a model that is kept as a stage of its own says."""
    return dataclasses.replace(before, quantise=own.quantise, base_dtype=own.base_dtype)


def recipe_from_dict(table: Table) -> Recipe:
    """Settings with or without stages from nested tables, as TOML holds them.

    Raises:
        ConfigError: a stage or an option is unknown, of the wrong type, out of range or without effect.
    """
    recipe = recorded_recipe(table)
    for section, options in table.items():
        for option in options if recipe.stages and section != STAGE else ():
            if len(recipe.stages_that_set(f"{section}.{option}")) == len(recipe.stages):
                raise ConfigError(f"{section}.{option} has no effect, as every stage has its own: remove it.")
    return recipe


def recorded_recipe(table: Table) -> Recipe:
    """As `recipe_from_dict`, from tables that `Recipe.to_dict` gave, in which every common option has a value."""
    common = {name: options for name, options in table.items() if name != STAGE}
    base = config_from_dict(common)
    if STAGE not in table:
        return Recipe(base)
    given = table[STAGE]
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise ConfigError(f"`{STAGE}` is a list of tables: begin each one with a line [[{STAGE}]].")
    recipe = Recipe(base, tuple(_stage(number, one) for number, one in enumerate(given, start=1)))
    names = [stage.name for stage in recipe.stages]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"two stages are called `{twice[0]}`: give each a `name` of its own.")
    if base.model.reference is not None:
        raise ConfigError(
            "model.reference has no effect beside stages: the reference of each is the model that enters it. Remove it."
        )
    for stage in recipe.stages:
        stage.settings(base)
    return recipe


def load_recipe(path: Path) -> Recipe:
    """Reads a TOML file of settings, with or without stages.

    Raises:
        ConfigError: as `recipe_from_dict`, or the file is missing or not TOML.
    """
    try:
        return recipe_from_dict(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _stage(number: int, given: object) -> Stage:
    if not isinstance(given, Mapping):
        raise ConfigError(f"`{STAGE}` is a list of tables: begin each one with a line [[{STAGE}]].")
    known = [field.name for field in dataclasses.fields(Config) if field.name not in SECTIONS_OF_ALL]
    for section, options in given.items():
        if section == "name":
            continue
        if section in SECTIONS_OF_ALL:
            raise ConfigError(
                f"stage {number}: [{section}] holds for all stages: write it before the first [[{STAGE}]]."
            )
        if section not in known:
            near = nearest(section, [*known, "name"])
            hint = f"Did you mean `{near}`?" if near else f"There are: name, {', '.join(known)}."
            raise ConfigError(f"stage {number} has no section `{section}`. {hint}")
        if not isinstance(options, Mapping):
            raise ConfigError(f"stage {number}: `{section}` is a section: write its options below [{STAGE}.{section}].")
    loss = given.get("loss", {})
    name = given.get("name", loss.get("name", f"{STAGE}-{number}"))
    try:
        TypeAdapter(RunName).validate_python(name, strict=True)
    except ValidationError as error:
        raise ConfigError(f"stage {number}: `name` must be one that a folder can have, not {name!r}.") from error
    return Stage(name, {section: dict(options) for section, options in given.items() if section != "name"})
