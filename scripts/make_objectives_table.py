"""Writes the tables of docs/objectives.md, read from the objectives themselves.

python scripts/make_objectives_table.py
"""

from __future__ import annotations

import re
from pathlib import Path

from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.in_words import grouped, needed, settings_in_words
from tiltlm.objectives.interface import Objective

TARGET = Path(__file__).parents[1] / "docs" / "objectives.md"
BEGIN, END = "<!-- written by scripts/make_objectives_table.py -->\n", "<!-- end -->\n"
HEAD = (
    "| `loss.name` | what it does, when to use it | it needs | its settings | source |",
    "| --- | --- | --- | --- | --- |",
)


def page() -> str:
    """The page's text, with its tables as the code has it."""
    text = TARGET.read_text(encoding="utf-8")
    written, places = re.subn(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}{tables()}{END}", text, flags=re.DOTALL)
    assert places == 1
    return written


def tables() -> str:
    """A table for each kind of data, families together."""
    written = []
    for group, members in grouped(OBJECTIVES.values()).items():
        written += ["", f"### {group}", "", *HEAD, *map(row, members), ""]
    return "\n".join([*written, ""])


def row(objective: Objective) -> str:
    """An objective's row of its table, without the line's end."""
    settings = [f"`{setting.name}` {setting.default} ({setting.allowed})" for setting in settings_in_words(objective)]
    name = re.sub(r"https://arxiv.org/abs/", "arXiv ", objective.source or "")
    cells = (f"`{objective.name}`", objective.what, ", ".join(needed(objective)), ", ".join(settings))
    return f"| {' | '.join(cells)} | [{name}]({objective.source}) |"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
