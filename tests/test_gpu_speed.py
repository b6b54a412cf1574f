"""The script that measures steps on a GPU runs, on tiny models and without one."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_speed.py"


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_every_section_leaves_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "results.json"
    run(monkeypatch, "--small", "--device", "cpu", "--steps", "2", "--only", "ours", "--out", str(out))
    record = json.loads(out.read_text())
    assert len(record["sections"]) == 7 and not record["left_out"]
    for name, found in record["sections"].items():
        assert "failed" not in found, (name, found)
        if name.startswith("speed"):
            assert found["pairs_per_second"] > 0 and len(found["step_seconds"]) == 2
            assert (found["dense_because"] is None) == ("dense" in name)
        else:
            assert found["pairs"] == 4 and found["does_not_fit"] is None


def test_a_peer_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "results.json"
    monkeypatch.setitem(sys.modules, "trl", None)
    run(monkeypatch, "--small", "--device", "cpu", "--only", "speed: gpt2, ultrafeedback, TRL", "--out", str(out))
    assert all("trl" in found["failed"] for found in json.loads(out.read_text())["sections"].values())


def test_sections_that_have_no_time_left_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "results.json"
    run(monkeypatch, "--small", "--device", "cpu", "--seconds", "0", "--only", "gpt2", "--out", str(out))
    record = json.loads(out.read_text())
    assert not record["sections"] and record["left_out"]


def test_without_a_gpu_nothing_large_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="--small"):
        run(monkeypatch, "--device", "cpu", "--out", str(tmp_path / "results.json"))
