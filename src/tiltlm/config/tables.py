"""Settings from nested tables and back: TOML files, `config.json`, dicts."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from tiltlm.config.declaring import unknown_option
from tiltlm.config.loss_config import LossConfig
from tiltlm.config.own_loss import UnreadLoss
from tiltlm.config.sections import Config
from tiltlm.errors import ConfigError
from tiltlm.objectives.own_file import is_own
from tiltlm.runs.schema import SCHEMA_KEY, NewerSchemaError, require_known


def load_config(path: Path) -> Config:
    """Reads a TOML file of sections and options; what it does not name keeps its default.

    Raises:
        ConfigError: the file is missing or not TOML, or an option is unknown, of the wrong type or out of range.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    try:
        return config_from_dict(table)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def settings_of_run(path: Path) -> Config | None:
    """The settings of a run's `config.json`, for another run; None where the file holds something else.

    Raises:
        ConfigError: they are those of a later version, or cannot be used.
    """
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(table, dict):
        return None
    version = table.pop(SCHEMA_KEY, None)
    if not table or not table.keys() <= {field.name for field in dataclasses.fields(Config)}:
        return None
    if not all(isinstance(section, dict) for section in table.values()):  # rows below a key `data`, say
        return None
    try:
        require_known(version if isinstance(version, int) else None)
        config = config_from_dict(table)
        # What its objective had by default is no choice of the user's: `--loss.name` may name another.
        loss = config.loss.without_defaults()
    except (ConfigError, NewerSchemaError) as error:
        raise ConfigError(f"{path}: {error}") from error
    # That run was told to replace another; nobody has told this one.
    return dataclasses.replace(config, run=dataclasses.replace(config.run, overwrite=False), loss=loss)


def config_from_dict(table: Mapping[str, Any]) -> Config:
    """Builds the configuration from nested tables, as TOML and `config.json` hold them. No code is run: an objective of
    a user's own is read by `validation.ready`.

    Raises:
        ConfigError: an option is unknown, of the wrong type or out of range.
    """
    kinds = get_type_hints(Config)
    sections: dict[str, Any] = {}
    for name, options in table.items():
        if name == "stage":
            raise ConfigError("stages ([[stage]]) are for training alone: give settings without them.")
        if name == "sweep":
            raise ConfigError("[sweep] is what `tiltlm sweep` reads: give it this file, or remove that table.")
        if name == "loss" and isinstance(options, Mapping) and is_own(options.get("name")):
            sections[name] = UnreadLoss(options["name"], {own: options[own] for own in options if own != "name"})
            continue
        if name not in kinds:
            raise ConfigError(unknown_option(name, "", list(kinds)))
        if not isinstance(options, Mapping):
            raise ConfigError(f"`{name}` is a section: write its options below a line [{name}].")
        known = list(get_type_hints(kinds[name]))
        for option in options:
            if option not in known:
                raise ConfigError(unknown_option(option, name, known))
        sections[name] = kinds[name](**(_loss_as_written(options) if name == "loss" else options))
    return Config(**sections)


def settings_table(config: Config) -> dict[str, dict[str, Any]]:
    """The settings as nested tables, for `config.json`: the objective's own are resolved, those of others left out."""
    table = dataclasses.asdict(config)
    return {**table, "loss": config.loss.written()}


def option_types(loss: type = LossConfig) -> dict[str, Any]:
    """Every option as `section.option`, with its type. loss: the section [loss]; a user's own objective adds to it."""
    sections = {**get_type_hints(Config), "loss": loss}
    return {
        f"{name}.{option}": hint for name, kind in sections.items() for option, hint in get_type_hints(kind).items()
    }


def option_names() -> list[str]:
    """Every option as `section.option`."""
    return list(option_types())


def _loss_as_written(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of [loss]. Runs of version 0.1 wrote the label smoothing, 0, beside `ipo` too, which reads none."""
    if options.get("name") == "ipo" and options.get("label_smoothing") == 0:
        return {option: value for option, value in options.items() if option != "label_smoothing"}
    return options
