"""Writes the tables of docs/speed.md from the records in benchmarks/results/speed.

python scripts/make_speed_tables.py
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from tiltlm.bench.speed_record import PICTURE, RECORD, SpeedRecord
from tiltlm.bench.speed_table import (
    ABLATED_HEAD,
    COMPARED_HEAD,
    QUOTIENT_HEAD,
    Rows,
    ablated_rows,
    compared_rows,
    in_words,
    is_ablation,
    quotient_rows,
)
from tiltlm.runs.schema import from_json

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "speed.md"
RESULTS = ROOT / "benchmarks" / "results" / "speed"
BEGIN, END = "<!-- written by scripts/make_speed_tables.py -->\n", "<!-- end -->\n"
NONE = "None is kept here yet.\n"


def page() -> str:
    """The page's text, with its tables as the records have it."""
    text = TARGET.read_text(encoding="utf-8")
    written, places = re.subn(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}{sections()}{END}", text, flags=re.DOTALL)
    assert places == 1
    return written


def sections(results: Path = RESULTS) -> str:
    """A section for each folder with a record, in the order of their names."""
    found = sorted(results.glob(f"*/{RECORD}"))
    return "\n".join(section(path) for path in found) or NONE


def section(path: Path) -> str:
    """A record's sentences, command and tables."""
    record = from_json(SpeedRecord, path.read_bytes())
    name, folder = path.parent.name, f"../benchmarks/results/speed/{path.parent.name}"
    versions = ", ".join(f"{package} {version}" for package, version in versions_of(record).items())
    before, after = ("unknown" if load is None else f"{load:.1f}" for load in (record.load_before, record.load_after))
    first, *more = in_words(record)
    lines = [f"### {name}", "", f"{first}; {versions}. {' '.join(more)}"]
    lines += [f"Load of the machine before and after: {before}, {after}.", ""]
    lines += [f"    {shlex.join(record.environment.command)}", ""]
    lines += [*table(COMPARED_HEAD, compared_rows(record)), *table(QUOTIENT_HEAD, quotient_rows(record))]
    lines += table(ABLATED_HEAD, ablated_rows(record)) if is_ablation(record) else []
    return "\n".join([*lines, f"[Record]({folder}/{RECORD}), [picture]({folder}/{PICTURE}).", ""])


def versions_of(record: SpeedRecord) -> dict[str, str]:
    """Versions of what was measured."""
    others = [one.timed.versions for one in record.measured if one.timed.versions]
    own = {name: record.environment.versions.get(name) for name in ("tiltlm", "torch", "transformers")}
    trl = {"TRL": others[0]["trl"]} if others else {}
    return {name: version for name, version in (own | trl).items() if version is not None}


def table(head: Sequence[str], rows: Rows) -> list[str]:
    """A table as Markdown has it; nothing where it has no rows."""
    if not rows:
        return []
    marked = [f"| {' | '.join(row)} |" for row in (tuple(head), ("---",) * len(head), *rows)]
    return [*marked, ""]


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
