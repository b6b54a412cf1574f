"""What a run says of its circumstances."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tiltlm
from tiltlm.runs import environment
from tiltlm.runs.environment import describe_environment, peak_memory_gib

SOURCES = Path(__file__).parents[2] / "src"


def test_peak_memory_counts_what_is_held() -> None:
    held = np.ones(2**28, dtype=np.uint8)  # every page touched
    peak = peak_memory_gib()
    assert peak is not None
    assert held.nbytes / 2**30 < peak < 100


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux counts a program's memory apart")
def test_peak_memory_is_of_this_program_not_of_the_one_that_started_it() -> None:
    held = np.ones(2**29, dtype=np.uint8)
    code = "from tiltlm.runs.environment import peak_memory_gib; print(peak_memory_gib())"
    output = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCES)}, check=True, capture_output=True, text=True
    ).stdout
    assert float(output) < 0.25 < 0.5 <= held.nbytes / 2**30


def test_our_own_version_is_that_of_the_code_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An editable installation keeps the version that it was made with."""
    monkeypatch.setattr(environment, "version", lambda package: "0.0.1")
    versions = describe_environment(("tiltlm",), "cpu", "float32").versions
    assert versions["tiltlm"] == tiltlm.__version__
    assert versions["torch"] == "0.0.1"
