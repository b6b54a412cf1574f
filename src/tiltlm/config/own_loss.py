"""The section [loss] where it names an objective of a user's own: kept as written, until its code is to be run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tiltlm.config.loss_config import LossConfig, loss_section
from tiltlm.config.suggestions import nearest
from tiltlm.errors import ConfigError
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import Objective
from tiltlm.objectives.own_file import OwnObjective, read_own


class UnreadLoss(LossConfig):
    """A section that names a user's own objective, whose code has not been run: so of a run's files, which may be
    somebody else's. `read_loss` makes the section that can be trained with."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "options", dict(options))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnreadLoss) and (self.name, self.options) == (other.name, other.options)

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def objective(self) -> Objective:
        """Not known before its code is run."""
        raise ConfigError(f"the objective `{self.name}` is a user's own, and its code has not been run.")

    def without_defaults(self) -> LossConfig:
        """The same: what its defaults are is not known."""
        return self

    def written(self) -> dict[str, Any]:
        """As it was written."""
        return {"name": self.name, **self.options}


def read_loss(loss: LossConfig) -> LossConfig:
    """The section, with the objective that it names: where that is a user's own, its code is run.

    Raises:
        ConfigError: the file is not there, fails or holds no such objective; or a setting is not the objective's.
    """
    return own_loss(read_own(loss.name), loss.options) if isinstance(loss, UnreadLoss) else loss


def own_loss(own: OwnObjective, options: Mapping[str, Any]) -> LossConfig:
    """The section for a user's own objective with some settings.

    Raises:
        ConfigError: a setting is not the objective's.
    """
    known = [field.name for field in dataclasses.fields(own.objective.settings)]
    for option in options:
        if option not in known:
            meant = nearest(option, known)
            hint = f"Did you mean `{meant}`? " if meant else ""
            there = f"It has: {', '.join(known)}." if known else "It has none."
            raise ConfigError(f"`{own.objective.name}` has no setting `{option}`. {hint}{there}")
    section: LossConfig = own_section(own)(own.objective.name, **options)
    return section


def own_section(own: OwnObjective) -> Any:
    """The kind of section that has an objective of a user's own beside the others."""
    made = loss_section({**OBJECTIVES, own.objective.name: own.objective}, LossConfig)
    made.own = own  # type: ignore[attr-defined]
    return made
