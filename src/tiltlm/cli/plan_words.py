"""The words of `tiltlm plan`: settings as for training, and what several ranks would be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tiltlm.cli.arguments import parsed
from tiltlm.cli.command_line import asks_for_help, check_flags, flag_names
from tiltlm.cli.own_flags import own_section_of, with_section
from tiltlm.cli.plan_arguments import Plan
from tiltlm.cli.settings_files import read_settings, settings_without_file
from tiltlm.config import option_types
from tiltlm.config.recipes import Recipe
from tiltlm.errors import ConfigError

_OF_RANKS = frozenset({"per_node", "tflops", "within", "between"})
_OF_PLAN: dict[str, Any] = {
    "no_calibration": bool,
    "ranks": int,
    "per_node": int,
    **dict.fromkeys(("tflops", "within", "between"), float),
}


@dataclass(frozen=True, slots=True)
class PlanWords:
    """What `tiltlm plan` is to tell.

    recipe: the settings that `tiltlm train` would have, with the stages. arguments: the command's own.
    """

    recipe: Recipe
    arguments: Plan


def parse_plan(words: Sequence[str]) -> PlanWords:
    """The words of `tiltlm plan`.

    Raises:
        ConfigError, SystemExit: as for `parse_config`.
    """
    file = list(words[:1]) if words and not words[0].startswith("-") else []
    flags = words[len(file) :]
    loss = own_section_of(flags, file)
    if not asks_for_help(flags):
        types = option_types() if loss is None else option_types(loss)
        check_flags(flags, {**types, **_OF_PLAN}, "tiltlm plan")
    recipe = read_settings(file[0])[0] if file else Recipe(settings_without_file(flag_names(flags)))
    recipe.require_common(flag_names(flags))
    if loss is not None:
        recipe = recipe.over(with_section(recipe.base, loss))
    arguments = parsed(Plan, words, recipe.base)
    if arguments.ranks is None and (given := sorted(_OF_RANKS & flag_names(flags))):
        raise ConfigError(
            f"--{given[0].replace('_', '-')} has no effect without --ranks: say how many there are to be."
        )
    for name in ("ranks", "per_node", "tflops", "within", "between"):
        value = getattr(arguments, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"--{name.replace('_', '-')} must be above 0, not {value}.")
    if arguments.ranks is not None and arguments.no_calibration and arguments.tflops is None:
        raise ConfigError("--ranks needs to know how fast a device is: give --tflops, or leave --no-calibration out.")
    return PlanWords(recipe.over(arguments.settings).ready(), arguments)
