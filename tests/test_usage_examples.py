"""Every file in `examples/` does what it says, on tiny models."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import example_run
import pytest
from scored_examples import losses, pairs
from tiny_runs import write_model, write_pairs

from tiltlm.cli import main
from tiltlm.objectives import gathered
from tiltlm.runs.run_files import read_run

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SMALL = ["--model.precision", "float32", "--comparison.prompts", "2", "--comparison.samples", "1"]
SMALL += ["--comparison.max-new-tokens", "4"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the examples, a tiny model and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    write_model(tmp_path / "tiny", chat=True)
    return tmp_path


def ran(*words: str) -> str:
    """What an example prints, run as its first lines say."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    names = [path.name for path in EXAMPLES.iterdir() if not path.name.startswith((".", "__"))]
    assert names and all(name in text for name in names)


def test_own_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data.columns", "chosen=better", "rejected=worse"]
    assert main(["inspect", "examples/own_data/pairs.jsonl", *words, "--model.path", "tiny"]) == 0
    assert "8 pairs" in capsys.readouterr().out
    assert main(["train", "examples/own_data/settings.toml", "--model.path", "tiny", *SMALL]) == 0
    run = read_run(here / "runs" / "own-data")
    assert run.summary is not None
    assert (run.summary.train_pairs, run.summary.eval_pairs, run.summary.steps) == (6, 2, 2)
    assert run.data.sources[0].format == "question" and run.data.dropped.count == 0


def test_own_objective(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: h is 2 - (-10) = 12 and 0, so (1 - 0.05 * 12)^2 = 0.16 and 1."""
    assert ran("examples/own_objective.py").splitlines()[0] == "losses  [0.16, 1.0]"
    package = here / "own_objectives"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy("examples/own_objective.py", package / "squared_hinge.py")
    monkeypatch.syspath_prepend(here)
    found = gathered("own_objectives", [str(package)])
    assert list(found) == ["squared_hinge"]
    assert all(words in (found["squared_hinge"].loss.__doc__ or "") for words in ("Units:", "At the start"))
    given = pairs([-10, -8, 0], [-30, -9, -99], [-12, -8, 0], [-20, -9, 0])
    assert losses(found["squared_hinge"], given, beta=0.05) == pytest.approx([0.16, 1, 0])


def test_from_python(here: Path) -> None:
    """The loss by hand: h is 2 - (-5) = 7, so log(1 + exp(-0.7)) = 0.403186."""
    lines = ran("examples/from_python.py", "tiny").splitlines()
    assert lines[0] == "read as question with 0 rows dropped"
    assert lines[-1] == "DPO's loss of a pair 0.403186"
    assert len(lines) == 6 and lines[1].startswith("held-out margin ") and "before:" in lines[2]
    assert (here / "runs" / "from-python" / "model" / "model.safetensors").is_file()


def test_read_run(tmp_path: Path) -> None:
    run = example_run.write_run(tmp_path / "run")
    shown = ran(str(EXAMPLES / "read_run.py"), str(run))
    assert shown.count("margin") == 2 and "What a wonderful evening!" in shown


def test_read_run_of_a_real_run(here: Path) -> None:
    write_pairs(here / "pairs.jsonl")
    assert main(["train", "--data.train", "pairs.jsonl", "--model.path", "tiny", *SMALL]) == 0
    example = runpy.run_path("examples/read_run.py")
    train, held_out = example["curves"](Path("runs/run"))
    assert list(train.index) == [1] and held_out.index[0] == 0
    assert {"loss", "margin", "accuracy"} <= set(train.columns) & set(held_out.columns)
    assert len(example["answers"](Path("runs/run"))) > 0
