"""The plan of a sweep: a grid, of which every combination is a member, or so many trials drawn from ranges."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from tiltlm.config.judge_words import require_no_own_code
from tiltlm.config.loss_config import LossConfig
from tiltlm.config.sections import Config
from tiltlm.config.suggestions import nearest
from tiltlm.config.sweeping import (
    Combination,
    Range,
    Values,
    combinations,
    combined,
    require_no_own,
    require_read,
    shown,
    values_given,
)
from tiltlm.config.tables import config_from_dict
from tiltlm.errors import ConfigError

Metric = Literal["accuracy", "margin", "loss"]
"""Held-out figures that trials can look for the best of."""
MOST = 1000
"""Members of a sweep; a grid of more was hardly meant."""
_SHORT_NAME = 60
_KEYS = ("options", "trials", "metric")


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What is swept: the settings that all members share, and values or ranges of others by option.

    trials: how many members are drawn, by `run.seed` of the shared settings; None: every combination is a member.
    metric: which held-out figure the trials are to make the best of.
    """

    base: Config
    swept: Mapping[str, Values] = field(default_factory=dict)
    trials: int | None = None
    metric: Metric = "accuracy"

    @property
    def values(self) -> dict[str, tuple[Any, ...]]:
        return {option: values for option, values in self.swept.items() if not isinstance(values, Range)}

    @property
    def ranges(self) -> dict[str, Range]:
        return {option: values for option, values in self.swept.items() if isinstance(values, Range)}

    def corners(self) -> tuple[list[Combination], list[str]]:
        """Every combination of a grid, or of the values and the ends of the ranges; and what is to be said of them.

        Raises:
            ConfigError: one of them cannot be trained, or the plan makes no sense; the message names it.
        """
        require_no_own([self.base.loss.name])
        if not self.swept:
            raise ConfigError(
                "nothing is swept: give an option several values (--loss.beta 0.05,0.1), or ranges and --trials."
            )
        if self.trials is None and self.ranges:
            option, ends = next(iter(self.ranges.items()))
            raise ConfigError(f"{option} is a range, {ends}: say how many members are drawn from it (--trials 20).")
        if self.trials is not None and not 1 <= self.trials <= MOST:
            raise ConfigError(f"trials are between 1 and {MOST}, not {self.trials}.")
        grid = {
            option: (values.low, values.high) if isinstance(values, Range) else values
            for option, values in self.swept.items()
        }
        count = 1
        for values in grid.values():
            count *= len(values)
        if self.trials is None and count > MOST:
            raise ConfigError(f"the grid has {count} combinations, and a sweep at most {MOST}: draw some (--trials).")
        require_read(self.base, self.swept)
        corners = combinations(self.base, grid)
        require_no_own_code(corner.config.comparison.reward for corner in corners[0])
        _require_no_rounds(corner.config for corner in corners[0])
        if self.trials is not None:
            self._require_comparable([corner.config.loss for corner in corners[0]])
        return corners

    def combination(self, settings: Mapping[str, Any]) -> Combination:
        """The member of these settings.

        Raises:
            ConfigError: it cannot be trained.
        """
        combination = combined(self.base, settings)[0]
        require_no_own_code([combination.config.comparison.reward])
        _require_no_rounds([combination.config])
        return combination

    def _require_comparable(self, losses: list[LossConfig]) -> None:
        """Refuses to look for the best of a figure that means another thing from member to member."""
        varied = [option for option in self.swept if option.startswith("loss.")]
        if self.metric == "loss" and varied:
            raise ConfigError(
                f"losses of members that differ in {' and '.join(varied)} are different quantities, and the least of "
                "them says nothing: choose --metric accuracy."
            )
        if self.metric == "margin" and varied:
            raise ConfigError(
                f"margins are in units of the objective (beta times nats), so those of members that differ in "
                f"{' and '.join(varied)} cannot be compared: choose --metric accuracy."
            )
        units = {loss.name: loss.objective.needs.unit for loss in losses}
        if self.metric != "loss" and len(set(units.values())) > 1:
            each = ", ".join(f"`{name}` per {unit}" for name, unit in units.items())
            raise ConfigError(
                f"the {self.metric} is another quantity for each kind of objective ({each}): sweep one kind."
            )
        if self.metric != "loss" and "demonstration" in units.values():
            raise ConfigError(f"an objective of demonstrations has no held-out {self.metric}: choose --metric loss.")


def _require_no_rounds(configs: Iterable[Config]) -> None:
    """Refuses members that are rounds: each is a run of several stages, and a sweep's members are of one.

    Raises:
        ConfigError: one has rounds.
    """
    if any(config.rounds.count for config in configs):
        raise ConfigError("a sweep trains no rounds: leave rounds.count out, or train them once for each setting.")


def member_name(number: int, settings: Mapping[str, Any]) -> str:
    """`003-ipo-beta-0.1`: the name of a member's folder."""
    words = [
        shown(value) if option == "loss.name" else f"{option.rpartition('.')[2]}-{shown(value)}"
        for option, value in settings.items()
    ]
    short = re.sub(r"[^A-Za-z0-9._+-]+", "-", "-".join(words))[:_SHORT_NAME].strip("-.")
    return f"{number:03d}-{short}".rstrip("-")


def in_folder(config: Config, directory: Path, name: str) -> Config:
    """The settings of a member, whose run lies in the sweep's folder."""
    run = dataclasses.replace(config.run, directory=str(directory), name=name, overwrite=False)
    return dataclasses.replace(config, run=run)


def shared_settings(config: Config) -> dict[str, dict[str, Any]]:
    """Settings as tables from which `config_from_dict` makes them again; the objective's as they were set."""
    loss = {option: value for option, value in vars(config.loss).items() if value is not None and option[0] != "_"}
    others = {
        section.name: dataclasses.asdict(getattr(config, section.name))
        for section in dataclasses.fields(config)
        if section.name != "loss"
    }
    return {**others, "loss": loss}


@dataclass(frozen=True, slots=True)
class SweepTable:
    """A file of settings with a table [sweep] in it; what the table does not say is None."""

    base: Config
    swept: dict[str, Values]
    trials: int | None
    metric: Metric | None


def load_sweep(path: Path) -> SweepTable:
    """Reads a TOML file of settings, in which a table [sweep] may have `trials`, `metric` and [sweep.options].

    Raises:
        ConfigError: it is not such a file; the message names the option.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    try:
        sweep = table.pop("sweep", {})
        if not isinstance(sweep, Mapping) or not isinstance(sweep.get("options", {}), Mapping):
            raise ConfigError("[sweep] and [sweep.options] are tables: write their keys below a line of that name.")
        for key in sweep.keys() - set(_KEYS):
            near = nearest(key, _KEYS)
            hint = f"Did you mean `{near}`?" if near else f"There are: {', '.join(_KEYS)}."
            raise ConfigError(f"unknown key in [sweep]: `{key}`. {hint}")
        trials, metric = sweep.get("trials"), sweep.get("metric")
        if trials is not None and (not isinstance(trials, int) or isinstance(trials, bool)):
            raise ConfigError(f"sweep.trials is a whole number, not {trials!r}.")
        return SweepTable(
            config_from_dict(table),
            {option: values_given(option, values) for option, values in _flat(sweep.get("options", {})).items()},
            trials,
            None if metric is None else metric_named(metric),
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def metric_named(name: object) -> Metric:
    """The metric of a name.

    Raises:
        ConfigError: there is none.
    """
    for metric in get_args(Metric):
        if metric == name:
            found: Metric = metric
            return found
    raise ConfigError(f"the metric of a sweep is one of {', '.join(get_args(Metric))}, not {name!r}.")


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """`loss.beta = [...]` below [sweep.options], which TOML reads as nested tables; quoted names are there as well."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": values for inner, values in value.items()}
        else:
            flat[name] = value
    return flat
