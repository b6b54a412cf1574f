"""A working folder in which a tiny run is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from broken_runs import Place
from tiny_runs import write_model, write_pairs

PICTURE = b"\x89PNG\r\n\x1a\n" + b"\0" * 4000 + b"IEND\xaeB`\x82"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Place:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("TILTLM_CACHE", str(here / "cache"))
    write_model(here / "tiny")
    write_pairs(here / "pairs.jsonl")
    return Place(here, capsys)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is most of the time that a tiny run takes, and no concern of these tests: the curves are left out."""
    monkeypatch.setattr("tiltlm.report.page.draw_training_metrics", lambda metrics, path: path.write_bytes(PICTURE))
    monkeypatch.setattr("tiltlm.report.page.panel_svgs", lambda metrics: [])
