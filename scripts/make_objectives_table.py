"""Writes the tables of docs/objectives.md: of the objectives, read from themselves, and of what was measured of them.

python scripts/make_objectives_table.py
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.in_words import grouped, needed, settings_in_words
from tiltlm.objectives.interface import Objective

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "objectives.md"
MEASURED = {"H200": "h200.csv", "CPU": "cpu.csv"}
"""Tables of sweeps of configs/objectives-demo.toml, by where they ran."""
BEGIN, END = "<!-- written by scripts/make_objectives_table.py -->\n", "<!-- end -->\n"
BEGIN_MEASURED = "<!-- measured, written by scripts/make_objectives_table.py -->\n"
HEAD = (
    "| `loss.name` | what it does, when to use it | it needs | its settings | source |",
    "| --- | --- | --- | --- | --- |",
)


def page() -> str:
    """The page's text, with its tables as the code has it."""
    text = TARGET.read_text(encoding="utf-8")
    written, places = re.subn(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}{tables()}{END}", text, flags=re.DOTALL)
    written, more = re.subn(
        f"{BEGIN_MEASURED}.*?{END}", lambda _: f"{BEGIN_MEASURED}{measured()}{END}", written, flags=re.DOTALL
    )
    assert (places, more) == (1, 1)
    return written


def measured() -> str:
    """A row of figures for each objective that was measured, in the order of the tables above."""
    rows: dict[str, str] = {}
    for where, name in MEASURED.items():
        with (ROOT / "benchmarks" / "results" / "objectives-demo" / name).open(encoding="utf-8", newline="") as file:
            for found in csv.DictReader(file):
                if found["status"] == "completed":
                    rows[found["loss.name"]] = figures(found, where)
    ordered = [one.name for members in grouped(OBJECTIVES.values()).values() for one in members]
    head = (
        "| `loss.name` | accuracy | log-odds, nats | chosen, nats | KL, nats | reward | on |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    )
    return "\n".join([*head, *(rows[name] for name in ordered if name in rows), ""])


def figures(found: dict[str, str], where: str) -> str:
    """A row of what was measured of one objective."""

    def shown(name: str, digits: int, sign: str = "+", scale: float = 1.0) -> str:
        if not found[name]:
            return "–"
        value = f"{scale * float(found[name]):{sign}.{digits}f}"
        low, high = found.get(f"{name}_low"), found.get(f"{name}_high")
        return f"{value} [{scale * float(low):.{digits}f}, {scale * float(high):.{digits}f}]" if low and high else value

    cells = [
        f"`{found['loss.name']}`",
        shown("accuracy", 0, "", 100.0),
        shown("log_odds_change", 2),
        shown("chosen_logp_change", 2),
        shown("kl", 2, ""),
        shown("reward_change", 2),
        where,
    ]
    return f"| {' | '.join(cells)} |"


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
