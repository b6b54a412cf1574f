"""Clocks that jump and machines that sleep change the dates and durations that are recorded, and nothing else."""

from __future__ import annotations

import ast
import itertools
import json
import time
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from broken_runs import RUN, Ended, Place, result

from tiltlm.runs import environment

SOURCES = sorted((Path(__file__).parents[2] / "src").rglob("*.py"))
DAYS = itertools.cycle([0, 3, -40, 400, -1])


class Jumping(datetime):
    """A wall clock that is set anew, forth and back by days, before each look at it."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Jumping:
        moment = datetime.now(tz) + timedelta(days=next(DAYS))
        return cls.fromisoformat(moment.isoformat())


def test_a_wall_clock_that_jumps_changes_nothing_but_dates(
    place: Place, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = place.wanted()
    place.back_to(None)
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + 86_400.0 * next(DAYS))
    monkeypatch.setattr(environment, "datetime", Jumping)
    assert place.train() == Ended(0, "")
    assert result() == wanted
    assert place.train("--run.overwrite") == Ended(0, "")
    outcome = json.loads((RUN / "outcome.json").read_text())
    assert 0 < outcome["seconds"] < 3600 and all(0 <= seconds < 3600 for seconds in outcome["stages"].values())
    started = datetime.fromisoformat(json.loads((RUN / "environment.json").read_text())["started"])
    assert abs(started - datetime.now(UTC)) < timedelta(days=500)


@pytest.mark.parametrize("leap", [0.0, 40_000.0], ids=["stands still", "sleeps"])
def test_a_machine_that_sleeps_changes_nothing_but_durations(
    leap: float, place: Place, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that does not stop when the machine is suspended leaps by hours; one of coarse ticks stands still."""
    wanted = place.wanted()
    place.back_to(None)
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: leap * next(ticks))
    monkeypatch.setattr(time, "monotonic", lambda: leap * next(ticks))
    assert place.train() == Ended(0, "")
    assert result() == wanted
    assert place.report() == Ended(0, "")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_durations_are_never_taken_from_the_wall_clock(path: Path) -> None:
    """It is looked at for the date of a run, that of a template which writes one, and that of a row which a tracker
    dates; and nowhere else."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    walls = {ast.unparse(call) for call in calls} & {
        *("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
        *("time.localtime", "time.gmtime", "time.strftime"),
    }
    assert not walls or path.name in ("environment.py", "token_cache.py", "tracker_adapters.py")
