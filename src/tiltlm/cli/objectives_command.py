"""`tiltlm objectives`: which objectives there are, and what one of them is. Without torch, so it starts at once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

from rich.console import Console
from rich.padding import Padding
from rich.table import Column, Table

from tiltlm.cli.safe_console import SafeConsole, as_it_is
from tiltlm.config.suggestions import nearest_value
from tiltlm.errors import ConfigError
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.in_words import grouped, needed, settings_in_words
from tiltlm.objectives.interface import Objective


def show_objectives(name: str | None) -> None:
    """Prints all objectives, or the one of a name.

    Raises:
        ConfigError: there is none of it.
    """
    console = SafeConsole(highlight=False, emoji=False)
    if name is None:
        list_objectives(OBJECTIVES, console)
    else:
        show_objective(found(name, OBJECTIVES), console)


def list_objectives(objectives: Mapping[str, Objective], console: Console) -> None:
    """Prints every objective with its unit, whether it has a reference, and when to use it."""
    for group, members in grouped(objectives.values()).items():
        console.print(as_it_is(f"\n{group}", "bold"))
        table = Table(Column(no_wrap=True, style="bold"), Column(), box=None, show_header=False, padding=(0, 2, 0, 0))
        for objective in members:
            table.add_row(as_it_is(objective.name), as_it_is(objective.what))
        console.print(table)
    console.print(as_it_is("\nEquation, needs, settings and source of one: tiltlm objectives NAME"))


def show_objective(objective: Objective, console: Console) -> None:
    """Prints what an objective computes and where it comes from, what it needs and what it may be given."""
    console.print(as_it_is(objective.name, "bold"))
    console.print(as_it_is(f"{objective.what}\n"))
    text = inspect.cleandoc(objective.loss.__doc__ or "It has no docstring that says what it computes.")
    for paragraph in _paragraphs(text):
        console.print(as_it_is(f"{paragraph}\n"))
    console.print(as_it_is("Settings", "bold"))
    settings = settings_in_words(objective)
    for setting in settings:
        console.print(as_it_is(f"  loss.{setting.name} = {setting.default}  ({setting.allowed.replace('`', '')})"))
        console.print(Padding(as_it_is(setting.text), (0, 0, 0, 6)))
    if not settings:
        console.print(as_it_is("  none"))
    console.print()
    lines = {
        "needs": ", ".join(needed(objective)),
        "source": objective.source or "none is cited",
        "elsewhere": ", ".join(objective.aliases),
        "code": _where(objective),
        "use": f"tiltlm train --loss.name {objective.name}",
    }
    for name, line in lines.items():
        if line:
            console.print(as_it_is(f"{name}: {line}"))


def _paragraphs(text: str) -> list[str]:
    """Those of a docstring, each on one line to be broken where the terminal ends; equations, indented, as they are."""
    text = re.sub(r"\n(Rewards:)", r"\n\n\1", text)
    blocks = re.split(r"\n{2,}", text)
    return [block if block.startswith(" ") else " ".join(block.split()) for block in blocks]


def found(name: str, objectives: Mapping[str, Objective]) -> Objective:
    """The objective of this name.

    Raises:
        ConfigError: there is none; the message has the nearest, or the one that others call so.
    """
    if name in objectives:
        return objectives[name]
    meant = nearest_value("loss.name", name, list(objectives))
    hint = f"Did you mean `{meant}`? " if meant else ""
    raise ConfigError(f"there is no objective `{name}`. {hint}tiltlm objectives lists all.")


def _where(objective: Objective) -> str:
    """File and line of its function."""
    path = inspect.getsourcefile(objective.loss)
    return f"{path}:{inspect.getsourcelines(objective.loss)[1]}" if path else ""
