"""What a sweep varies: values of options from words or Python, and the combinations of them that make sense."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from tiltlm.config.declaring import impossible_choice, unknown_option
from tiltlm.config.loss_config import LossConfig, readers_of, settings_of
from tiltlm.config.sections import Config
from tiltlm.config.suggestions import nearest_options
from tiltlm.config.tables import option_types
from tiltlm.config.validation import validate
from tiltlm.errors import ConfigError
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.own_file import is_own
from tiltlm.text.type_words import alternatives, takes

OF_THE_SWEEP = ("run.name", "run.directory", "run.overwrite", "run.trackers")
"""Options that belong to the sweep as a whole."""
WITHOUT_EFFECT = "checkpoint."
"""Options of this section do not change what a run comes to."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included, of which trials draw."""

    low: float
    high: float
    whole: bool

    @property
    def logarithmic(self) -> bool:
        """Fractions above zero are drawn evenly by their logarithm, as is sensible for rates and betas; whole numbers,
        and ranges that begin at zero, evenly."""
        return not self.whole and self.low > 0

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"


Values = tuple[Any, ...] | Range
"""What an option takes in turn, or the range it is drawn from."""


@dataclass(frozen=True, slots=True)
class Combination:
    """One member to be: the swept options that its objective reads, and all its settings."""

    settings: dict[str, Any]
    config: Config

    def __str__(self) -> str:
        return described(self.settings)


def described(settings: Mapping[str, Any]) -> str:
    """`loss.name ipo, loss.beta 0.1`."""
    return ", ".join(f"{option} {shown(value)}" for option, value in settings.items()) or "as set"


def shown(value: object) -> str:
    """A value as it is written on a command line."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_swept(option: str, text: str) -> bool:
    """Whether the text of a flag means several values: a comma, `..` between numbers, or `all` objectives.

    A comma within the name of a file or folder that is there is part of it, and an option that takes several words is
    left as it is.
    """
    hint = option_types().get(option)
    if hint is None or _takes_many(hint):
        return False
    if (_is_number(hint) and ".." in text) or _is_all(option, text):
        return True
    return "," in text and not _is_place(text)


def values_of_text(option: str, text: str) -> Values:
    """The values that `0.05,0.1,0.5`, or the range that `1e-7..1e-5` stands for; `all` of loss.name: every objective.

    Raises:
        ConfigError: a value is none that the option could have.
    """
    hint = option_types()[option]
    if _is_number(hint) and ".." in text:
        return _range(option, text, hint)
    if _is_all(option, text):
        return tuple(OBJECTIVES)
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ConfigError(f"{option} lacks a value beside a comma: `{text}`. Values stand together: 0.05,0.1,0.5.")
    if option == "loss.name":
        require_no_own(parts)
    return _several(option, tuple(_value(option, part, hint) for part in parts))


def values_given(option: str, given: object) -> Values:
    """The same from Python or TOML: a list of values, or the text of a range.

    Raises:
        ConfigError: the option is unknown or cannot be swept, or it is given no list.
    """
    require_sweepable(option)
    if isinstance(given, str) and is_swept(option, given):
        return values_of_text(option, given)
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ConfigError(f"{option}: a sweep takes a list of values or a range such as 1e-7..1e-5, not {given!r}.")
    if option == "loss.name":
        require_no_own(given)
    return _several(option, tuple(given))


def require_no_own(names: Iterable[object]) -> None:
    """Refuses objectives of a user's own.

    Raises:
        ConfigError: one is.
    """
    if own := next((name for name in names if is_own(name)), None):
        raise ConfigError(
            f"loss.name is `{own}`, an objective of a user's own, and a sweep takes those that come with tiltlm: train "
            "it once for each setting (tiltlm train)."
        )


def require_sweepable(option: str) -> None:
    """Refuses options that are unknown, or that no two members could differ in.

    Raises:
        ConfigError: naming the option, and the one that was probably meant.
    """
    known = option_types()
    if option not in known:
        near = nearest_options(option, list(known))
        raise ConfigError(
            f"there is no option `{option}`. Did you mean `{near[0]}`?"
            if near
            else unknown_option(option.rpartition(".")[2], option.partition(".")[0], list(known))
        )
    if option in OF_THE_SWEEP:
        raise ConfigError(f"{option} belongs to the whole sweep: give it one value.")
    if option == "data.source":
        raise ConfigError("data.source cannot be swept: sweep data.train over files, or train on each mixture apart.")
    if option.startswith(WITHOUT_EFFECT):
        raise ConfigError(f"{option} does not change what a run comes to: give it one value.")


def combinations(base: Config, grid: Mapping[str, tuple[Any, ...]]) -> tuple[list[Combination], list[str]]:
    """Every combination of a grid once, and what is to be said of it.

    A setting that an objective does not read is left out of its combinations, which so become one.

    Raises:
        ConfigError: a combination cannot be trained, whose settings are named.
    """
    found: dict[tuple[tuple[str, Any], ...], Combination] = {}
    notes: dict[str, None] = {}
    for values in itertools.product(*grid.values()):
        one, unread = combined(base, dict(zip(grid, values, strict=True)))
        notes |= dict.fromkeys(unread)
        found.setdefault(tuple(one.settings.items()), one)
    return list(found.values()), list(notes)


def combined(base: Config, settings: Mapping[str, Any]) -> tuple[Combination, list[str]]:
    """One combination, and what of it has no effect, in words.

    Raises:
        ConfigError: it cannot be trained; its settings are named.
    """
    try:
        sections: dict[str, dict[str, Any]] = {}
        for option, value in settings.items():
            section, _, name = option.partition(".")
            sections.setdefault(section, {})[name] = value
        loss, unread = _loss(base.loss, sections.pop("loss", {}))
        changed = {
            section: dataclasses.replace(getattr(base, section), **options) for section, options in sections.items()
        }
        config = validate(dataclasses.replace(base, loss=loss, **changed))
    except ConfigError as error:
        raise ConfigError(f"the combination of {described(settings)} is refused: {error}") from error
    effective = {option: value for option, value in settings.items() if option not in unread}
    notes = [f"{option} has no effect on `{loss.name}`: its members go without it." for option in unread]
    return Combination(effective, config), notes


def _loss(base: LossConfig, swept: Mapping[str, Any]) -> tuple[LossConfig, list[str]]:
    """The objective with those of its settings that it reads, and the options that it does not read."""
    name = swept.get("name", base.name)
    given = _set(base) | {option: value for option, value in swept.items() if option != "name"}
    read = {field.name for field in dataclasses.fields(LossConfig(name).objective.settings)}
    unread = [f"loss.{option}" for option in given if option not in read]
    return LossConfig(name, **{option: value for option, value in given.items() if option in read}), unread


def _set(loss: LossConfig) -> dict[str, Any]:
    """The settings of the objective that have a value."""
    return {option: value for option in settings_of(loss.objectives) if (value := getattr(loss, option)) is not None}


def require_read(base: Config, grid: Mapping[str, Values]) -> None:
    """Refuses a setting of the objective that none of the sweep's objectives reads.

    Raises:
        ConfigError: naming it, and who reads it.
    """
    names = grid.get("loss.name", (base.loss.name,))
    assert not isinstance(names, Range)
    given = _set(base.loss).keys() | {option.partition(".")[2] for option in grid if option.startswith("loss.")}
    read = {field.name for name in names for field in dataclasses.fields(LossConfig(name).objective.settings)}
    for option in sorted(given - read - {"name"}):
        readers = " or ".join(f"`{name}`" for name in readers_of(option, OBJECTIVES))
        raise ConfigError(
            f"loss.{option} has no effect on {' or '.join(f'`{name}`' for name in names)}: remove it, or add {readers} "
            "to loss.name."
        )


def _several(option: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    require_sweepable(option)
    if not values:
        raise ConfigError(f"{option} is given no value.")
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ConfigError(f"{option} names {shown(value)} twice.")
    return values


def _range(option: str, text: str, hint: Any) -> Range:
    require_sweepable(option)
    whole = float not in alternatives(hint)
    ends = [_value(option, part.strip(), hint) for part in text.split("..")]
    if len(ends) != 2 or not all(isinstance(end, int | float) for end in ends):
        raise ConfigError(f"{option}: a range has two ends, such as 1e-7..1e-5, and is not `{text}`.")
    if not ends[0] < ends[1]:
        raise ConfigError(f"{option}: a range goes from the smaller to the larger number, not `{text}`.")
    return Range(ends[0], ends[1], whole)


def _value(option: str, text: str, hint: Any) -> Any:
    """One value from its text, of the option's type; its range is checked where the option is set."""
    kinds = alternatives(hint)
    if text in ("None", "") and type(None) in kinds:
        return None
    if bool in kinds:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{option} is true or false, not `{text}`.")
        return text.lower() == "true"
    for kind in (int, float):
        if kind in kinds and (number := _number(kind, text)) is not None:
            return number
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if text not in choices and (int in kinds or float in kinds):
        raise ConfigError(f"{option} is {takes(hint)}, not `{text}`.")
    if choices and text not in choices and str not in kinds:
        raise ConfigError(impossible_choice(option, text, hint))
    if not text:
        raise ConfigError(f"{option} has an empty value in its list.")
    return text


def _number(kind: type[int] | type[float], text: str) -> int | float | None:
    try:
        number = kind(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _is_all(option: str, text: str) -> bool:
    return (option, text) == ("loss.name", "all")


def _is_number(hint: Any) -> bool:
    return bool({int, float} & set(alternatives(hint)))


def _takes_many(hint: Any) -> bool:
    return any(get_origin(kind) in (tuple, list, dict) for kind in (hint, *get_args(hint)))


def _is_place(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False
