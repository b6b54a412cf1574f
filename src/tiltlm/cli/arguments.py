"""The commands as typed sub-commands: what each takes, parsed and explained by tyro.

tyro knows one union of them; what each is for is in `descriptions`, which `tiltlm --help` is drawn from. Its own
messages about mistakes are boxes of several lines; so words are looked at by `command_line.check_flags` first, which
says a mistake in a line, with the nearest name, and what tyro is given it understands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from tiltlm.cli.bench_arguments import Bench
from tiltlm.cli.descriptions import DESCRIPTIONS, PROGRAM
from tiltlm.cli.frontier_arguments import Frontier
from tiltlm.cli.judge_arguments import Judge
from tiltlm.cli.pair_arguments import Pair
from tiltlm.cli.plan_arguments import Plan
from tiltlm.cli.sample_arguments import Sample
from tiltlm.cli.settings_argument import Settings
from tiltlm.config import Config
from tiltlm.config.help_texts import explain

Cleared = Literal["reference", "tokens", "models", "replies", "answers", "all"]
Arguments = TypeVar("Arguments")


@dataclass(frozen=True)
class Train:
    """Arguments of `tiltlm train`."""

    file: Annotated[
        Path | None,
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="[CONFIG.toml]",
            help_behavior_hint="",
            help="Sections and options of the same names as the flags, which win over it. "
            "The config.json of an earlier run will do as well.",
        ),
    ]
    settings: Settings
    resume: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="RUN",
            help_behavior_hint="",
            help="Go on with a run that was stopped or killed, from its last checkpoint, as if it never had been; with "
            "its own settings, unless a file or flags give others.",
        ),
    ] = None
    allow: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            metavar="NAME ...",
            help_behavior_hint="",
            help="With --resume: what may be another than before though it changes the result: data, model, reference, "
            "or options by name.",
        ),
    ] = ()
    auto_resume: Annotated[
        bool,
        tyro.conf.arg(
            help_behavior_hint="",
            help="Begin the run, or go on with it where it was begun, with the same settings: for schedulers that "
            "start the same command again after a job was pre-empted. A run that came to its end is left as it is.",
        ),
    ] = False


@dataclass(frozen=True)
class Sweep:
    """Arguments of `tiltlm sweep`; options that are swept are taken out of the words before."""

    file: Annotated[
        Path | None,
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="[CONFIG.toml]",
            help_behavior_hint="",
            help="As for tiltlm train; [sweep.options] in it may hold what is swept, [sweep] trials and metric.",
        ),
    ]
    settings: Settings
    trials: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="N",
            help_behavior_hint="",
            help="Draw so many members by run.seed, in place of every combination. Fractions above zero are drawn on a "
            'logarithmic scale, whole numbers evenly. Needs pip install "tiltlm[sweep]".',
        ),
    ] = None
    metric: Annotated[
        Literal["accuracy", "margin", "loss"] | None,
        tyro.conf.arg(
            help_behavior_hint="(default: accuracy)",
            help="With --trials: the held-out figure to make the best of, by which members are stopped too. Losses and "
            "margins of different objectives are different quantities, and refused.",
        ),
    ] = None
    resume: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="SWEEP",
            help_behavior_hint="",
            help="Go on with a sweep that was stopped or killed: members that ended stay, the one at work goes on from "
            "its last checkpoint. The plan is the sweep's own.",
        ),
    ] = None
    retry_failed: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(help_behavior_hint="", help="With --resume: begin the members that failed anew."),
    ] = False
    dry_run: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(help_behavior_hint="", help="Show the members with their optimizer steps, and stop."),
    ] = False


@dataclass(frozen=True)
class Compare:
    """Arguments of `tiltlm compare`."""

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]", help_behavior_hint="")] = None
    """The run's folder; the newest run in runs/ that can be compared if none is given."""
    prompt: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    """Prompts to answer now; may be given several times. Written as the training data was: as a chat if it was
    chats, else verbatim."""
    trust_remote_code: Annotated[bool, tyro.conf.arg(help_behavior_hint=""), tyro.conf.FlagCreatePairsOff] = False
    """Run Python code that comes with the model, if the run was trained so. Only for runs you trust."""


@dataclass(frozen=True)
class Report:
    """Arguments of `tiltlm report`."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="")]
    """The folder of a run or a sweep."""


@dataclass(frozen=True)
class Inspect:
    """Arguments of `tiltlm inspect`."""

    data: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="DATA", help_behavior_hint="", help="A file, a folder or a hub dataset id."),
    ]
    settings: Settings
    report: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="FILE.json", help_behavior_hint="", help="Keep the whole account, every dropped row included."
        ),
    ] = None


@dataclass(frozen=True)
class Export:
    """Arguments of `tiltlm export`."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="")]
    """The run's folder."""
    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
    """The folder to write the model into; it must not be there."""
    checkpoint: Annotated[str, tyro.conf.arg(metavar="best|last|STEP")] = "best"
    """Which checkpoint: the one with the best held-out figure (checkpoint.best), the last, or that of a step."""


@dataclass(frozen=True)
class Objectives:
    """Arguments of `tiltlm objectives`."""

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]", help_behavior_hint="")] = None
    """The objective to show; all are listed if none is given."""


@dataclass(frozen=True)
class Merge:
    """Arguments of `tiltlm merge`."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="")]
    """The run's folder."""
    model: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[FOLDER]", help_behavior_hint="")] = None
    """The folder to write the model into, which must not be there; RUN/merged if none is named."""


@dataclass(frozen=True)
class Cache:
    """Arguments of `tiltlm cache`."""

    clear: Annotated[Cleared | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Remove reference log-probabilities, tokenized data, the converted embedded model, replies of language models that
    judged answers, or all. What is needed is made again."""


@dataclass(frozen=True)
class ConvertConfig:
    """Arguments of `tiltlm convert-config`."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
    """YAML as `trl dpo --config` takes it, or JSON, such as a dump of TrainingArguments."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE.toml", help_behavior_hint="")] = None
    """Write the settings into this file, which must not be there. Unset: to standard output."""
    pairs: Annotated[int | None, tyro.conf.arg(help_behavior_hint="")] = None
    """How many pairs train: turns what is given as a share of the run, such as warmup_ratio, into steps."""
    processes: int = 1
    """How many processes trained at once: a step had the pairs of all."""
    strict: Annotated[bool, tyro.conf.arg(help_behavior_hint=""), tyro.conf.FlagCreatePairsOff] = False
    """Fail where an argument has no counterpart."""


COMMANDS: dict[str, type] = {
    "train": Train,
    "sweep": Sweep,
    "compare": Compare,
    "report": Report,
    "inspect": Inspect,
    "export": Export,
    "merge": Merge,
    "plan": Plan,
    "bench": Bench,
    "frontier": Frontier,
    "sample": Sample,
    "judge": Judge,
    "pair": Pair,
    "objectives": Objectives,
    "cache": Cache,
    "convert-config": ConvertConfig,
}
"""Every command by its name."""
_WITH_TEXTS_BELOW = (Compare, Report, Export, Merge, Objectives, Cache, ConvertConfig, Frontier, Sample, Judge, Pair)
_WITH_SETTINGS: dict[type, Callable[[Config], object]] = {
    Train: lambda config: Train(None, config),
    Plan: lambda config: Plan(None, config),
    Bench: lambda config: Bench(None, config),
    Sweep: lambda config: Sweep(None, config),
    Inspect: lambda config: Inspect(tyro.MISSING, config),
}


def parsed(kind: type[Arguments], words: Sequence[str], settings: Config | None = None) -> Arguments:
    """The arguments of a command from the words behind its name.

    settings: where those that no flag names come from; none for commands without.

    Raises:
        SystemExit: help was asked for, and shown; or a word is not understood, which `check_flags` says better.
    """
    name = name_of(kind)
    if {"-h", "--help"} & set(words):
        for explained in (Config, *_WITH_TEXTS_BELOW):
            explain(explained)
    union: Any = reduce(or_, [_subcommand(name, kind, settings or Config()) for name, kind in COMMANDS.items()])
    arguments = tyro.cli(union, args=[name, *words], prog="tiltlm", description=PROGRAM)
    assert isinstance(arguments, kind)
    return arguments


def name_of(kind: type) -> str:
    """The name of the command whose arguments are of a type."""
    return next(name for name, command in COMMANDS.items() if command is kind)


def _subcommand(name: str, kind: Any, settings: Config) -> Any:
    start = _WITH_SETTINGS.get(kind)
    default: dict[str, Any] = {} if start is None else {"default": start(settings)}
    return Annotated[kind, tyro.conf.subcommand(name, description=DESCRIPTIONS[name], **default)]
