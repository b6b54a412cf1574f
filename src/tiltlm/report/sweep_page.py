"""Writes the page of a sweep and its table, from the files of its members alone."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tiltlm.config.sweeping import shown
from tiltlm.objectives import OBJECTIVES
from tiltlm.report.differences import Differences, differences
from tiltlm.report.page import templates, write_text
from tiltlm.report.policy import with_policy
from tiltlm.report.sweep_figures import MemberFigures, member_figures, table_csv, table_row
from tiltlm.report.sweep_findings import CORRECTION, sweep_findings
from tiltlm.report.sweep_plots import curve_svgs, frontier_svg, looks
from tiltlm.runs.schema import versioned
from tiltlm.runs.sweep_folder import SweepFolder, SweepRecord


def write_sweep_report(path: Path) -> Path:
    """Rebuilds `report.html`, `table.csv` and `table.json` of a sweep, in whatever state it is.

    Returns the path of `report.html`.

    Raises:
        RunError: it is no sweep, or its plan is damaged.
    """
    folder = SweepFolder(path)
    record = folder.read()
    members = member_figures(folder, record)
    rows = [table_row(member) for member in members]
    write_text(path / "table.csv", table_csv(rows, record.options))
    table = versioned({"members": [dataclasses.asdict(row) for row in rows]})
    write_text(path / "table.json", json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    page = path / "report.html"
    paged = {member.number for member in record.members if (folder.member(member) / "report.html").is_file()}
    write_text(page, render_sweep(record, members, paged))
    return page


def render_sweep(record: SweepRecord, members: list[MemberFigures], paged: set[int]) -> str:
    """The page as HTML that needs no script, no network and no other file.

    paged: numbers of members that have a page of their own, to be linked to.
    """
    found = differences(members)
    look = looks(record)
    frontier = frontier_svg(members, look)
    environment = templates()
    environment.filters["value"] = shown
    page = environment.get_template("sweep.html.j2").render(
        record=record,
        members=members,
        paged=paged,
        looks=look,
        findings=sweep_findings(record, members, found),
        correction=CORRECTION if found.figures else "",
        # Safe because plots write no text but our own labels and numbers.
        panels=[(title, Markup(svg)) for title, svg in curve_svgs(members, look)],
        frontier=None if frontier is None else Markup(frontier),
        mixed=len({_unit(member) for member in members}) > 1,
        rewarded=any(member.reward_change is not None for member in members),
        diverged=any(member.kl is not None for member in members),
        failed=[member for member in members if member.record.status == "failed"],
        found=found,
        cells=_cells(found),
        command=shlex.join(record.command),
        places=_places(record.settings["data"]),
    )
    return with_policy(page)


def _places(data: Mapping[str, Any]) -> str:
    """Where the training pairs come from."""
    return ", ".join(source["path"] for source in data.get("source", ())) or str(data["train"])


def _cells(found: Differences) -> dict[tuple[str, int, int], object]:
    """Every cell of the matrices, None on their diagonals."""
    return {
        (figure.name, one, other): None if one == other else found.between(figure.name, one, other)
        for figure in found.figures
        for one in figure.members
        for other in figure.members
    }


def _unit(member: MemberFigures) -> str | None:
    objective = OBJECTIVES.get(member.loss)
    return None if objective is None else objective.needs.unit
