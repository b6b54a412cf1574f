"""The script that measures adapters on a GPU runs, on a tiny model and without one."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_adapters.py"


def test_the_script_measures_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "results.json"
    words = ["--tiny", "--device", "cpu", "--steps", "2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    ways = json.loads(out.read_text())["ways"]
    assert len(ways) == 8
    for name, found in ways.items():
        assert len(found["losses"]) == 2 and found["losses"][0] == pytest.approx(0.6931, abs=2e-3), name
        assert found["planned_bytes"] > 0 and found["peak_bytes"] is None
    assert ways["lora, nf4 base"]["trained_parameters"] == ways["lora"]["trained_parameters"]
