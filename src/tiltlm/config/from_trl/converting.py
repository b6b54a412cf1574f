"""From the arguments of a TRL script to settings, and what they leave out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from tiltlm.config.from_trl.adapter_translation import adapter
from tiltlm.config.from_trl.argument import TRL
from tiltlm.config.from_trl.draft import Draft, Remark, RemarkKind, Setting
from tiltlm.config.from_trl.given_arguments import Given, nearest_argument, short
from tiltlm.config.from_trl.loss_translation import loss
from tiltlm.config.from_trl.run_translation import data, model, run
from tiltlm.config.from_trl.training_translation import checkpoints, training
from tiltlm.config.sections import Config
from tiltlm.config.tables import config_from_dict
from tiltlm.config.validation import ready
from tiltlm.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Conversion:
    """Settings in the order of the sections, and what is to be known besides."""

    settings: tuple[Setting, ...]
    remarks: tuple[Remark, ...]

    def said(self, kind: RemarkKind) -> list[Remark]:
        """The remarks of a kind."""
        return [remark for remark in self.remarks if remark.kind == kind]

    def tables(self) -> dict[str, dict[str, Any]]:
        """The settings as nested tables."""
        found: dict[str, dict[str, Any]] = {}
        for setting in self.settings:
            section, _, option = setting.option.partition(".")
            found.setdefault(section, {})[option] = setting.value
        return found


def convert(given: Given, pairs: int | None = None, processes: int = 1) -> Conversion:
    """The settings that say what TRL's arguments say.

    Where an argument is not given it has TRL's default, not ours.

    pairs: how many train, where that is known. processes: how many trained at once.

    Raises:
        ConfigError: an argument has a value that neither TRL nor tiltlm can use.
    """
    draft = Draft(given, pairs, processes)
    for topic in (training, run, model, adapter, data, loss, checkpoints):
        topic(draft)
    draft.name_unused()
    for name, value in given.unknown.items():
        near = nearest_argument(name)
        meant = f"Did you mean {near}?" if near else f"TRL {TRL} has no such argument."
        draft.remarks.append(Remark("lost", f"{name} = {short(value)}", meant))
    order = [field.name for field in fields(Config)]
    settings = sorted(draft.settings.values(), key=lambda one: order.index(one.option.partition(".")[0]))
    conversion = Conversion(tuple(settings), tuple(draft.remarks))
    try:
        ready(config_from_dict(conversion.tables()))
    except ConfigError as error:
        raise ConfigError(f"the arguments cannot be used together: {error}") from error
    return conversion
