"""From the words of `tiltlm bench` to what is measured: its own flags, and the settings of `tiltlm train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tiltlm.bench.speed_record import PICTURE, RECORD
from tiltlm.bench.systems import ABLATED, COMPARED, LIVE, OURS, SYSTEMS, System
from tiltlm.bench.wanted import Wanted
from tiltlm.cli.arguments import parsed
from tiltlm.cli.bench_arguments import Bench
from tiltlm.cli.command_line import asks_for_help, check_flags, flag_names
from tiltlm.cli.settings_files import read_settings, settings_without_file
from tiltlm.config import Config, option_types
from tiltlm.config.suggestions import nearest
from tiltlm.config.validation import ready
from tiltlm.errors import ConfigError, RunError

_OWN = {
    "systems": tuple[str, ...],
    "ablation": bool,
    "rounds": int,
    "steps": int,
    "batch": int,
    "trl_python": str,
    "output": Path,
}


@dataclass(frozen=True, slots=True)
class BenchWords:
    """The settings, what is measured in them, and the folder that it goes to."""

    config: Config
    wanted: Wanted
    output: Path


def parse_bench(words: Sequence[str]) -> BenchWords:
    """What `tiltlm bench` is to do.

    Raises:
        ConfigError: a word is not understood, or has no effect.
        RunError: the folder has a benchmark already.
        SystemExit: help was asked for, and shown.
    """
    file = list(words[:1]) if words and not words[0].startswith("-") else []
    flags = words[len(file) :]
    named = flag_names(flags)
    if not asks_for_help(words):
        check_flags(flags, {**option_types(), **_OWN}, "tiltlm bench")
    if file:
        recipe, _ = read_settings(file[0])
        if recipe.stages:
            raise ConfigError(f"{file[0]} has stages, and a benchmark is of one training: give settings without them.")
        base = recipe.base
    else:
        base = settings_without_file(named)
    arguments = parsed(Bench, words, base)
    if arguments.batch is not None and "training.batch_pairs" in named:
        raise ConfigError("--batch and --training.batch-pairs are one: leave one of them out.")
    for name, value in (("rounds", arguments.rounds), ("batch", arguments.batch)):
        if value is not None and value < 1:
            raise ConfigError(f"--{name} must be at least 1, not {value}.")
    config = ready(arguments.settings)
    wanted = Wanted(
        systems=_systems(arguments.systems, arguments.ablation),
        rounds=arguments.rounds,
        steps=arguments.steps,
        batch=config.training.batch_pairs if arguments.batch is None else arguments.batch,
        trl_python=arguments.trl_python or sys.executable,
    )
    if arguments.trl_python is not None and not any(one.maker == "trl" for one in wanted.systems):
        raise ConfigError("--trl-python has no effect where TRL is not measured: leave it out.")
    return BenchWords(config, wanted, _free(arguments.output.expanduser()))


def _systems(names: Sequence[str], ablation: bool) -> tuple[System, ...]:
    for name in names:
        if name not in SYSTEMS:
            near = nearest(name, list(SYSTEMS))
            hint = f"Did you mean `{near}`?" if near else f"There are: {', '.join(SYSTEMS)}."
            raise ConfigError(f"--systems has no `{name}`. {hint}")
    wanted = set(names) or ({OURS, LIVE} if ablation else {one.name for one in COMPARED})
    if ablation:
        wanted |= {OURS, *(one.name for one in ABLATED)}
    return tuple(one for name, one in SYSTEMS.items() if name in wanted)


def _free(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise RunError(f"--output {folder} is a file: name a folder.")
    for name in (RECORD, PICTURE):
        if (folder / name).exists():
            raise RunError(f"{folder / name} is there already: name another folder (--output), or remove it.")
    return folder
