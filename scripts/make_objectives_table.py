"""Writes the table of docs/objectives.md, read from the objectives themselves.

python scripts/make_objectives_table.py
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import TypeAdapter

from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import Needs, Objective

TARGET = Path(__file__).parents[1] / "docs" / "objectives.md"
ROWS = re.compile(r"(?<=\n\| --- \| --- \| --- \| --- \|\n)(?:\| `.*\n)*")
RANGES = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "up to"}


def page() -> str:
    """The page's text, with its table as the code has it."""
    rows = "".join(f"{row(objective)}\n" for objective in OBJECTIVES.values())
    text, tables = ROWS.subn(lambda _: rows, TARGET.read_text(encoding="utf-8"))
    assert tables == 1
    return text


def row(objective: Objective) -> str:
    """An objective's row of the table."""
    settings = []
    for name, field in TypeAdapter(objective.settings).json_schema()["properties"].items():
        bounds = [f"{words} {field[bound]:g}" for bound, words in RANGES.items() if bound in field]
        bounds += [" or ".join(f"`{choice}`" for choice in field["enum"])] if "enum" in field else []
        settings.append(f"`{name}` {field['default']} ({', '.join(bounds)})")
    return f"| `{objective.name}` | {objective.what} | {_needed(objective.needs)} | {', '.join(settings)} |"


def _needed(needs: Needs) -> str:
    named = {
        "pairs": needs.unit == "pair",
        "single answers": needs.unit == "completion",
        "lists": needs.unit == "list",
        "answers to imitate": needs.unit == "demonstration",
        "scores": needs.scores == "value",
        "a reference": needs.reference,
        "numbers of tokens": needs.counts,
        "values of single tokens": needs.tokens,
        "the whole batch at once": needs.coupled,
        "mismatched answers": needs.mismatched,
    }
    return ", ".join(words for words, holds in named.items() if holds)


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
