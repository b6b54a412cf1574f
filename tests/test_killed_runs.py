"""Runs that are killed go on to the same bits: the short form of scripts/kill_runs.py.

One run is killed while a checkpoint is written, one in the reference pass.
"""

from __future__ import annotations

from pathlib import Path

import kill_runs


def test_killed_runs_come_to_what_they_would_have_come_to(tmp_path: Path) -> None:
    pattern = kill_runs.make_pattern(tmp_path)
    wanted, seconds = kill_runs.unbroken(pattern, tmp_path)
    for number in (1, 3):
        found = kill_runs.trial(number, 7, pattern, wanted, seconds, tmp_path, most=1)
        assert found.differences == [], found
