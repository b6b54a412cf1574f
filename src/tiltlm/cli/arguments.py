"""The commands as typed sub-commands: what each takes, parsed and explained by tyro.

tyro knows one union of them, so that `tiltlm --help` is drawn from these classes too. Its own messages about mistakes
are boxes of several lines; so words are looked at by `command_line.check_flags` first, which says a mistake in a line,
with the nearest name, and what tyro is given it understands.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from tiltlm.config import Config
from tiltlm.config.help_texts import explain

Settings = Annotated[Config, tyro.conf.arg(name="")]
"""All settings, as flags `--section.option`."""
Cleared = Literal["reference", "tokens", "models", "all"]
Arguments = TypeVar("Arguments")


@dataclass(frozen=True)
class Train:
    """Train on preference pairs, compare, report; without arguments the demo.

    Everything a run leaves behind lies in runs/NAME. Without a file of settings and without --data.train the demo's
    settings are the starting point.
    """

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


@dataclass(frozen=True)
class Compare:
    """Answers before and after training, side by side: those recorded, or new ones to prompts of your own."""

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]", help_behavior_hint="")] = None
    """The run's folder; the newest run in runs/ that can be compared if none is given."""
    prompt: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    """Prompts to answer now; may be given several times. Written as the training data was: as a chat if it was
    chats, else verbatim."""


@dataclass(frozen=True)
class Report:
    """Rebuild training_metrics.png, comparison.md and report.html from the files of a run."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="")]
    """The run's folder."""


@dataclass(frozen=True)
class Inspect:
    """Show what is in preference data, before training on it.

    The options are those of tiltlm train; --model.path names the model whose tokenizer counts.
    """

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
class Cache:
    """Show what is kept between runs: where it lies, what it is, how large; or remove it."""

    clear: Annotated[Cleared | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Remove reference log-probabilities, tokenized data, the converted embedded model, or all. What is needed is made
    again."""


COMMANDS: dict[str, type] = {"train": Train, "compare": Compare, "report": Report, "inspect": Inspect, "cache": Cache}
"""Every command by its name."""
_DESCRIPTION = """\
Direct Preference Optimization of language models: small, fast, honest.

Each command explains itself: tiltlm train --help
"""
_WITH_TEXTS_BELOW = (Compare, Report, Cache)
_WITH_SETTINGS: dict[type, Callable[[Config], object]] = {
    Train: lambda config: Train(None, config),
    Inspect: lambda config: Inspect(tyro.MISSING, config),
}


def parsed(kind: type[Arguments], words: Sequence[str], settings: Config | None = None) -> Arguments:
    """The arguments of a command from the words behind its name.

    settings: where those that no flag names come from; none for commands without.

    Raises:
        SystemExit: help was asked for, and shown; or a word is not understood, which `check_flags` says better.
    """
    name = next(name for name, command in COMMANDS.items() if command is kind)
    arguments = _cli([name, *words], settings or Config(), whole=True)
    assert isinstance(arguments, kind)
    return arguments


def show_help() -> None:
    """Prints what commands there are."""
    try:
        _cli(["--help"], Config(), whole=False)
    except SystemExit:
        return


def _cli(words: Sequence[str], settings: Config, whole: bool) -> object:
    """What tyro makes of a command line. whole: explain a command with all it says of itself, not its first words."""
    if {"-h", "--help"} & set(words):
        for kind in (Config, *_WITH_TEXTS_BELOW):
            explain(kind)
    commands = [_subcommand(name, kind, settings, whole) for name, kind in COMMANDS.items()]
    union: Any = reduce(or_, commands)
    return tyro.cli(union, args=list(words), prog="tiltlm", description=_DESCRIPTION)


def _subcommand(name: str, kind: Any, settings: Config, whole: bool) -> Any:
    paragraphs = inspect.cleandoc(kind.__doc__).split("\n\n")
    start = _WITH_SETTINGS.get(kind)
    default: dict[str, Any] = {} if start is None else {"default": start(settings)}
    text = "\n\n".join(paragraphs if whole else paragraphs[:1])
    return Annotated[kind, tyro.conf.subcommand(name, description=text, **default)]
