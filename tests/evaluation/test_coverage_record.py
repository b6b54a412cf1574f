"""What docs/win-rates.md says of coverage is what was measured, and what was measured is what is promised."""

from __future__ import annotations

from pathlib import Path

from interval_coverage import CHANGE, CONTROLLED, PROMPTS, RESULTS, USUAL, Cell, Record, table
from tiltlm.runs.schema import from_json
from tiltlm.statistics import STUDIED_FROM

PAGE = (Path(__file__).parents[2] / "docs" / "win-rates.md").read_text(encoding="utf-8")
RECORD = from_json(Record, (RESULTS / "coverage.json").read_bytes())


def promised(cell: Cell) -> bool:
    """Settings of which docs/win-rates.md says that 93% to 97% of the intervals hold the truth."""
    if cell.figure in ("win rate", CONTROLLED):
        return cell.prompts >= STUDIED_FROM and cell.samples > 1
    return cell.setting in USUAL and cell.prompts >= STUDIED_FROM


def test_the_page_has_the_table_that_was_measured() -> None:
    assert table(RECORD) in PAGE


def test_from_sixteen_prompts_on_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    cells = [cell for cell in RECORD.cells if promised(cell)]
    assert {cell.figure for cell in cells} == {"win rate", CONTROLLED, "mean reward", CHANGE}
    assert {cell.prompts for cell in cells} == set(PROMPTS) - {8}
    outside = [cell for cell in cells if not 0.93 <= cell.covered <= 0.97]
    assert not outside
    assert RECORD.repetitions >= 2000
