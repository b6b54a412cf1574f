"""From the words of `tiltlm sweep` to its plan: flags with several values are swept, all others are as for training."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tiltlm import demo
from tiltlm.cli.arguments import Sweep, parsed
from tiltlm.cli.command_line import asks_for_help, check_flags, flag_names, is_flag, option_of
from tiltlm.cli.own_flags import named_objective
from tiltlm.cli.settings_files import read_settings, settings_without_file
from tiltlm.config import Config, option_types
from tiltlm.config.sweep_plan import Metric, SweepPlan, SweepTable, load_sweep, metric_named
from tiltlm.config.sweeping import Values, is_swept, require_no_own, values_of_text
from tiltlm.config.validation import with_home
from tiltlm.errors import ConfigError
from tiltlm.runs.folder import free_name

NAME = "sweep"
"""What a sweep is called that nobody has given a name."""
_OWN = {
    "trials": int,
    "metric": Literal["accuracy", "margin", "loss"],
    "resume": Path,
    "dry_run": bool,
    "retry_failed": bool,
}


@dataclass(frozen=True, slots=True)
class SweepWords:
    """A plan, or a sweep to go on with.

    note: what is to be said first. dry_run: show the members and stop. retry_failed: begin anew what failed.
    """

    plan: SweepPlan | None
    resume: Path | None
    note: str | None
    dry_run: bool
    retry_failed: bool


def parse_sweep(words: Sequence[str]) -> SweepWords:
    """What `tiltlm sweep` is to do.

    Raises:
        ConfigError: a word is not understood, or has no effect.
        SystemExit: help was asked for, and shown.
    """
    file = list(words[:1]) if words and not words[0].startswith("-") else []
    flags, swept = _without_swept(words[len(file) :])
    if not asks_for_help(words):
        require_no_own(named_objective(flags))
        check_flags(flags, {**option_types(), **_OWN}, "tiltlm sweep")
    named = flag_names(flags)
    if "resume" in named:
        return _resumed(file, words[len(file) :])
    table, name_given = _table(file, {*named, *swept})
    require_no_own([table.base.loss.name])
    arguments = parsed(Sweep, [*file, *flags], table.base)
    if arguments.retry_failed:
        raise ConfigError("--retry-failed has no effect without --resume: name the sweep to go on with.")
    trials = arguments.trials if arguments.trials is not None else table.trials
    metric: Metric | None = arguments.metric or table.metric
    if metric is not None and trials is None:
        raise ConfigError("--metric has no effect without --trials: every combination of a grid is run to its end.")
    config = with_home(arguments.settings)
    config, note = _named(config, name_given or "run.name" in named)
    plan = SweepPlan(config, {**table.swept, **swept}, trials, metric_named(metric or "accuracy"))
    return SweepWords(plan, None, note, arguments.dry_run, False)


def _without_swept(flags: Sequence[str]) -> tuple[list[str], dict[str, Values]]:
    """The flags that have one value, and what the others sweep."""
    kept: list[str] = []
    swept: dict[str, Values] = {}
    place = 0
    while place < len(flags):
        word = flags[place]
        place += 1
        kept.append(word)
        if not is_flag(word):
            continue
        option, _, text = word.partition("=")
        width = 0
        if "=" not in word:
            if place == len(flags) or is_flag(flags[place]):
                continue
            text, width = flags[place], 1
        option = option_of(word)
        if is_swept(option, text):
            if option in swept:
                raise ConfigError(f"--{option} was given twice.")
            swept[option] = values_of_text(option, text)
            kept.pop()
            place += width
    for option in sorted(swept.keys() & flag_names(kept)):
        raise ConfigError(f"--{option} was given twice.")
    return kept, swept


def _table(file: Sequence[str], named: set[str]) -> tuple[SweepTable, bool]:
    """The settings to start from, and whether they name the run."""
    if not file:
        return SweepTable(settings_without_file(named), {}, None, None), False
    path = Path(file[0]).expanduser()
    if path.suffix.lower() == ".toml" and path.is_file():
        table = load_sweep(path)
        return table, path != demo.CONFIG and "name" in tomllib.loads(path.read_text(encoding="utf-8")).get("run", {})
    recipe, name_given = read_settings(file[0])
    return SweepTable(recipe.base, {}, None, None), name_given


def _named(config: Config, name_given: bool) -> tuple[Config, str | None]:
    """The settings with the sweep's name, the first free one where none was given; and what to say of it."""
    if name_given:
        return config, None
    name = free_name(Path(config.run.directory), NAME)
    note = None
    if name != NAME:
        note = f"{Path(config.run.directory) / NAME} is taken, so this sweep is called {name} (--run.name)."
    return dataclasses.replace(config, run=dataclasses.replace(config.run, name=name)), note


def _resumed(file: Sequence[str], flags: Sequence[str]) -> SweepWords:
    """A sweep goes on with its own plan: nothing else can be said with it."""
    others = sorted(flag_names(flags) - {"resume", "retry_failed"})
    if file or others:
        other = file[0] if file else f"--{others[0].replace('_', '-')}"
        raise ConfigError(f"{other} has no effect on a sweep that goes on, whose plan is kept: leave it out.")
    arguments = parsed(Sweep, list(flags), Config())
    assert arguments.resume is not None
    return SweepWords(None, arguments.resume.expanduser(), None, False, arguments.retry_failed)
