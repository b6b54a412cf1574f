"""Runs whose objective reads credit by token: what it is made of, kept, and gone on with."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_folders import save_tiny

import tiltlm.pipeline.crediting as crediting
from tiltlm.cli import main
from tiltlm.pipeline.crediting import CREDIT
from tiltlm.runs.run_files import read_run
from tiltlm.training.loop import Trainer

RUN = Path("runs/run")
TRAIN = ["train", "--model.path", "tiny", "--data.train", "lists.jsonl", "--loss.name", "pcl"]
TRAIN += ["--training.batch-pairs", "4", "--comparison.prompts", "0", "--training.learning-rate", "1e-3"]


def write_lists(prompts: int) -> None:
    """Two answers of one word more or less to each prompt; more of `good` is better."""
    rows = [
        {
            "prompt": f"What of {number}?",
            "completions": [" good" * (1 + number % 3) + " it is", " bad it is" * (1 + number % 2), " it is good"],
            "scores": [1.0 + number % 3, 0.0, 1.0],
        }
        for number in range(prompts)
    ]
    Path("lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    save_tiny(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    write_lists(24)
    return tmp_path


def weights() -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = load_file(RUN / "model" / "model.safetensors")
    return found


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scores_that_words_foretell_are_credited_and_learnt(
    here: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "--training.epochs", "20", "--model.precision", precision]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "credit by token: the model's states foretell " in said
    run = read_run(RUN)
    assert run.evaluation is not None
    first = json.loads((RUN / "metrics.jsonl").read_text().splitlines()[0])
    assert run.evaluation.figures.loss < 0.9 * first["loss"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_that_goes_on_takes_the_credit_that_it_began_with(
    here: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = [*TRAIN, "--training.max-steps", "12", "--model.precision", precision]
    assert main(train) == 0
    whole, credit = weights(), load_file(RUN / CREDIT)
    step = Trainer.step

    def stopped(self: Trainer, *given: Any) -> object:
        if self.progress.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopped)
        assert main([*train, "--run.overwrite"]) == 130
    assert all(np.array_equal(own, credit[name]) for name, own in load_file(RUN / CREDIT).items())

    def never(*given: object) -> None:
        raise AssertionError("the credit is found anew")

    monkeypatch.setattr(crediting, "_found", never)
    assert main(["train", "--resume", str(RUN)]) == 0
    assert all(np.array_equal(own, whole[name]) for name, own in weights().items())


def test_lists_of_one_prompt_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = Path("lists.jsonl").read_text().splitlines(keepends=True)
    Path("lists.jsonl").write_text(rows[0] * 1)
    Path("held_out.jsonl").write_text(rows[1])
    assert main([*TRAIN, "--data.eval", "held_out.jsonl"]) != 0
    assert "there is one alone" in " ".join(capsys.readouterr().err.split())
