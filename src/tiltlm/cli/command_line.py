"""From the words of a command line to settings; mistakes in them are said in a line, with what was probably meant."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from tiltlm.cli.arguments import Arguments, Inspect, Train, name_of, parsed
from tiltlm.cli.own_flags import own_section_of, with_section, without_own
from tiltlm.cli.settings_files import DATA_NAME, read_settings, settings_without_file
from tiltlm.config import Config, option_types
from tiltlm.config.own_loss import UnreadLoss
from tiltlm.config.recipes import Recipe, Stage
from tiltlm.config.resuming import Resume, in_place_of, recipe_to_resume, require_named
from tiltlm.config.suggestions import nearest_options, nearest_value, note_on
from tiltlm.config.validation import ready
from tiltlm.errors import ConfigError
from tiltlm.text.type_words import alternatives, takes

_SWITCHED = frozenset({"true", "false", "yes", "no", "on", "off", "1", "0", "none"})
_NUMBER = re.compile(r"-[.\d]")


@dataclass(frozen=True, slots=True)
class Parsed:
    """The settings of a command line; whether the run's name was the user's choice, by a flag or a file.

    stages: those that the file has; the settings hold for all of them.
    resume: the run to go on with, if one is. auto_resume: whether to go on with the run of this name if it was begun.
    """

    config: Config
    name_given: bool
    stages: tuple[Stage, ...] = ()
    resume: Resume | None = None
    auto_resume: bool = False

    @property
    def recipe(self) -> Recipe:
        """The settings with the stages."""
        return Recipe(self.config, self.stages)


def parse_config(words: Sequence[str]) -> Config:
    """The resolved and validated settings of `tiltlm train`: a file of settings if one is named, then flags.

    Raises:
        ConfigError: a word is not understood, or a setting is out of range or without effect.
        SystemExit: help was asked for, and shown.
    """
    return parse(words).config


def parse(words: Sequence[str]) -> Parsed:
    """As `parse_config`, with what the file and the flags say of the run's name."""
    file = list(words[:1]) if words and not words[0].startswith("-") else []
    flags = words[len(file) :]
    named = flag_names(flags)
    loss = own_section_of(flags, file)
    if not asks_for_help(flags):
        types = option_types() if loss is None else option_types(loss)
        check_flags(flags, {**types, "resume": Path, "allow": tuple[str, ...], "auto_resume": bool}, "tiltlm train")
    run = _run_to_resume(flags) if "resume" in named else None
    if file:
        recipe, name_given = read_settings(file[0])
    elif run is not None:
        recipe, name_given = recipe_to_resume(run, named), True
    else:
        recipe, name_given = Recipe(settings_without_file(flag_names(flags))), False
    recipe.require_common(named)
    if loss is not None:
        recipe = recipe.over(with_section(recipe.base, loss))
    elif isinstance(recipe.base.loss, UnreadLoss) and "loss.name" in named:
        recipe = recipe.over(without_own(recipe.base))
    elif run is not None and not file:
        require_named(run, recipe)
    arguments = parsed(Train, words, recipe.base)
    if run is None:
        if arguments.allow:
            raise ConfigError("--allow has no effect without --resume: name the run to go on with, or leave it out.")
        config = recipe.over(arguments.settings).ready().base
        named_by_user = name_given or "run.name" in named
        return Parsed(config, named_by_user, recipe.stages, auto_resume=arguments.auto_resume)
    if given := sorted({"run.name", "run.directory", "run.overwrite"} & named):
        raise ConfigError(f"--{given[0]} has no effect on a run that goes on, {run}: leave it out.")
    config = recipe.over(in_place_of(run, arguments.settings)).ready().base
    resume = Resume(run, frozenset(arguments.allow))
    return Parsed(config, True, recipe.stages, resume, auto_resume=arguments.auto_resume)


def parse_inspect(words: Sequence[str]) -> Inspect:
    """What `tiltlm inspect` is to look at, in what settings; as for training on those data.

    Raises:
        ConfigError: no data are named, or as for `parse_config`.
        SystemExit: help was asked for, and shown.
    """
    loss = own_section_of(words[1:], [])
    if not asks_for_help(words):
        if not words or words[0].startswith("-"):
            raise ConfigError("name the data to inspect: tiltlm inspect DATA, a file, a folder or a hub dataset id.")
        types = option_types() if loss is None else option_types(loss)
        check_flags(words[1:], {**types, "report": Path}, "tiltlm inspect")
    arguments = parsed(Inspect, words, Config() if loss is None else with_section(Config(), loss))
    if twice := sorted({"data.train", "data.source"} & flag_names(words)):
        raise ConfigError(f"the data to inspect are named once, as the first word: leave --{twice[0]} out.")
    data = dataclasses.replace(arguments.settings.data, train=arguments.data)
    settings = ready(dataclasses.replace(arguments.settings, data=data))
    report = arguments.report and arguments.report.expanduser()
    # Found out before the work, not after it.
    if report is not None and (report.is_dir() or not report.parent.is_dir()):
        why = "it is a folder" if report.is_dir() else f"there is no folder {report.parent}"
        raise ConfigError(f"--report {arguments.report} cannot be written: {why}.")
    return Inspect(arguments.data, settings, report)


def parse_simple(kind: type[Arguments], words: Sequence[str], options: Mapping[str, Any], positional: int) -> Arguments:
    """The arguments of a command without settings.

    options: its flags, with their types. positional: how many words may stand before them.

    Raises:
        ConfigError: a word is not understood.
        SystemExit: help was asked for, and shown.
    """
    if not asks_for_help(words):
        leading = next((place for place, word in enumerate(words) if is_flag(word)), len(words))
        check_flags(words[min(leading, positional) :], options, f"tiltlm {name_of(kind)}")
    return parsed(kind, words)


def asks_for_help(words: Sequence[str]) -> bool:
    return bool({"-h", "--help"} & set(words))


def flag_names(words: Sequence[str]) -> set[str]:
    """The options that flags in a command line set, as `section.option`."""
    return {option_of(word) for word in words if word.startswith("--")}


def check_flags(words: Sequence[str], options: Mapping[str, Any], prog: str) -> None:
    """Refuses flags that are unknown, lack a value or have an impossible one, and words that belong to no flag.

    options: what may be set, with its type.

    Raises:
        ConfigError: naming the word and what was probably meant.
    """
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if not is_flag(word):
            raise ConfigError(_stray(word, prog))
        option = option_of(word)
        if option not in options:
            raise ConfigError(_unknown(word.partition("=")[0], list(options), prog))
        values = [word.partition("=")[2]] if "=" in word else []
        while not values or _takes_many(options[option]):
            if place == len(words) or is_flag(words[place]):
                break
            if options[option] is bool and words[place].lower() not in _SWITCHED:
                break
            values.append(words[place])
            place += 1
        _check_values(word.partition("=")[0], option, values, options[option], prog)


def is_flag(word: str) -> bool:
    """Whether a word names an option: it begins with a dash and is no negative number."""
    return word.startswith("-") and len(word) > 1 and not _NUMBER.match(word)


def option_of(flag: str) -> str:
    """`training.learning_rate` for `--training.learning-rate=1`; also for the `no-` form of a switch."""
    section, dot, name = flag.partition("=")[0].lstrip("-").replace("-", "_").rpartition(".")
    option = f"{section}{dot}{name}"
    positive = f"{section}{dot}{name.removeprefix('no_')}"
    return positive if option_types().get(positive) is bool else option


def _takes_many(hint: Any) -> bool:
    return any(get_origin(kind) in (tuple, list, dict) for kind in (hint, *get_args(hint)))


def _check_values(flag: str, option: str, values: Sequence[str], hint: Any, prog: str) -> None:
    if hint is bool:
        if values:
            raise ConfigError(f"{flag} is a switch: write it without a value (`{values[0]}`).")
        return
    if not values and not _takes_many(hint):
        raise ConfigError(f"{flag} needs a value. `{prog} --help` says which.")
    if get_origin(hint) is dict:
        _check_names(flag, values)
    kinds = alternatives(hint)
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    for value in values:
        if type(None) in kinds and value == "None":
            continue
        number = next((kind for kind in (float, int) if kind in kinds), None)
        if number is not None and _reads_as(number, value):
            continue
        if choices and value not in choices:
            near = nearest_value(option, value, choices)
            meant = f" Did you mean `{near}`?" if near else ""
            others = f" or {takes(number)}" if number is not None else ""
            raise ConfigError(f"{flag} cannot be `{value}`; it is one of {', '.join(choices)}{others}.{meant}")
        if bool in kinds and value not in ("True", "False"):
            raise ConfigError(f"{flag} is True or False, not `{value}`.")
        if number is not None and value not in choices:
            raise ConfigError(f"{flag} is {takes(number)}, not `{value}`.")


def _check_names(flag: str, values: Sequence[str]) -> None:
    for place, value in enumerate(values):
        ours, _, theirs = value.partition("=")
        if not ours or not theirs:
            raise ConfigError(f"{flag} takes OURS=THEIRS, for example prompt=question, not `{value}`.")
        if any(earlier.partition("=")[0] == ours for earlier in values[:place]):
            raise ConfigError(f"{flag} names `{ours}` twice.")


def _reads_as(kind: type[int] | type[float], value: str) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True


def _unknown(flag: str, options: Sequence[str], prog: str) -> str:
    note = note_on(flag.lstrip("-"))
    if note is not None:
        return f"there is no option `{flag}`. {note}"
    near = [f"`--{option.replace('_', '-')}`" for option in nearest_options(flag.lstrip("-"), [*options, "help"])]
    hint = f"Did you mean {' or '.join(near[:3])}?" if near else f"`{prog} --help` lists all."
    return f"there is no option `{flag}`. {hint}"


def _stray(word: str, prog: str) -> str:
    if DATA_NAME.search(word) and prog == "tiltlm train":
        return f"`{word}` looks like data: tiltlm train --data.train {word}"
    return f"`{word}` belongs to no option: a flag takes one value, and a text with spaces needs quotes."


def _run_to_resume(flags: Sequence[str]) -> Path:
    place = next(place for place, word in enumerate(flags) if word.partition("=")[0] == "--resume")
    given = flags[place].partition("=")[2] or flags[place + 1]
    return Path(given).expanduser()
