"""Flags for the settings of an objective of a user's own: they are known once the objective is named."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiltlm.config import Config, LossConfig
from tiltlm.config.loss_config import settings_of
from tiltlm.config.own_loss import UnreadLoss, own_loss, own_section
from tiltlm.errors import ConfigError
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.own_file import is_own, read_own


def own_section_of(flags: Sequence[str], file: Sequence[str]) -> Any:
    """The kind of the section [loss] if a flag, or else the file of settings, names an objective of a user's own, whose
    code is run for it; else None.

    Raises:
        ConfigError: there is no such objective.
    """
    named: list[object] = [*named_objective(flags)]
    if not named and file:
        named = [_named_in(Path(file[0]).expanduser())]
    return own_section(read_own(str(named[-1]))) if named and is_own(named[-1]) else None


def named_objective(flags: Sequence[str]) -> list[str]:
    """What `--loss.name` is given, each time."""
    places = [place for place, word in enumerate(flags) if word.partition("=")[0] == "--loss.name"]
    given = [flags[place].partition("=")[2] or next(iter(flags[place + 1 :]), "") for place in places]
    return [name for name in given if name]


def _named_in(path: Path) -> object:
    """The objective that a file of settings names; None where it names none, or is none, which is said elsewhere."""
    read = json.loads if path.suffix.lower() == ".json" else tomllib.loads
    try:
        table: object = read(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    section = table.get("loss") if isinstance(table, dict) else None
    return section.get("name") if isinstance(section, dict) else None


def without_own(config: Config) -> Config:
    """The settings for another objective than the user's own that they name, and whose code is not run.

    Raises:
        ConfigError: they have a setting that no other objective has.
    """
    assert isinstance(config.loss, UnreadLoss)
    known, options = settings_of(OBJECTIVES), config.loss.options
    for option in options:
        if option not in known:
            raise ConfigError(f"loss.{option} is a setting of `{config.loss.name}`, and of no other objective.")
    return dataclasses.replace(config, loss=LossConfig(**options))


def with_section(config: Config, kind: Any) -> Config:
    """The settings with a section [loss] of this kind, so that flags of its own objective can follow."""
    loss, own = config.loss, kind.own
    if isinstance(loss, UnreadLoss):
        return dataclasses.replace(config, loss=own_loss(own, loss.options if loss.name == own.objective.name else {}))
    return dataclasses.replace(
        config, loss=kind(loss.name, **{option: getattr(loss, option) for option in settings_of(OBJECTIVES)})
    )
