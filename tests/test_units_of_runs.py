"""Whole runs of objectives that learn from something else than pairs: they train, go on to the same bits, and say what
they did in words of their own.
"""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from broken_runs import leave_undrawn
from kill_runs import RUN, outcome_of
from tiny_runs import write_model

from tiltlm.cli import main
from tiltlm.runs.run_files import read_run
from tiltlm.training.loop import Trainer

WORDS = [
    *["--data.train", "data.jsonl", "--model.path", "model", "--run.name", "run", "--model.precision", "float32"],
    *["--comparison.prompts", "2", "--comparison.max-new-tokens", "4", "--comparison.samples", "1"],
    *["--training.epochs", "3", "--training.batch-pairs", "8", "--training.learning-rate", "1e-2"],
    *["--training.eval-every", "4", "--checkpoint.every-steps", "2"],
]


@dataclass(frozen=True)
class Case:
    """loss: its name. row: the data of a number. noun: what an example is called."""

    loss: str
    noun: str
    row: Any


ANSWERS = {True: " yes", False: " no"}
CASES = (
    Case(
        "bco",
        "example",
        lambda n: {"prompt": f"Is {n} a number? Answer:", "completion": ANSWERS[n % 3 > 0], "label": n % 3 > 0},
    ),
    Case("sft", "demonstration", lambda n: {"prompt": f"Is {n} a number? Answer:", "completion": " yes" * (1 + n % 3)}),
)
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.loss)


def start(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    folder.mkdir()
    write_model(folder / "model")
    (folder / "data.jsonl").write_text("".join(json.dumps(case.row(n)) + "\n" for n in range(24)))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TILTLM_CACHE", str(folder / "cache"))
    return main(["train", *WORDS, "--loss.name", case.loss, "--training.micro-batch-tokens", "64", *words])


@every
def test_it_learns_and_says_so_in_its_own_words(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(case, tmp_path / "run", monkeypatch) == 0
    run = read_run(RUN)
    assert run.summary is not None and run.evaluation is not None and run.evaluation.loss_change is not None
    assert run.evaluation.loss_change.mean < 0 and run.summary.eval_loss_change == run.evaluation.loss_change
    page = (RUN / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<(style|svg).*?</\1>", "", page))
    card = (RUN / "model" / "README.md").read_text(encoding="utf-8")
    said = " ".join([json.dumps(run.summary.questions, default=str), card.partition("## Settings")[0]])
    for words in (text, said):
        assert case.noun in words
        assert not re.search(r"preference pair|\d pairs?\b|chosen above rejected", words)
    if case.noun == "demonstration":
        assert "perplexity" in text and "perplexity" in card and "Trained on demonstrations" in card
        for words in (text, said):
            assert re.findall(r".{0,50}(?:[Mm]argin|accuracy|reject|implicit).{0,50}", words) == []
        assert all(
            row.margin is None and row.accuracy is None for row in (*run.metrics.train, *run.metrics.evaluations)
        )
        assert page.count("over the training steps") == 3, "no curves of rewards"


@every
def test_stopped_it_goes_on_to_the_same_bits(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_undrawn(monkeypatch)
    assert start(case, tmp_path / "whole", monkeypatch) == 0
    wanted = outcome_of(tmp_path / "whole")
    real = Trainer.step

    def with_signal(self: Trainer, *arguments: Any) -> object:
        if self.progress.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", with_signal)
        assert start(case, tmp_path / "stopped", patch) != 0
    monkeypatch.chdir(tmp_path / "stopped")
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "stopped" / "cache"))
    assert main(["train", "--resume", str(RUN)]) == 0
    assert outcome_of(tmp_path / "stopped") == wanted


@every
def test_micro_batches_change_nothing(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_undrawn(monkeypatch)
    losses = []
    for tokens in ("64", "100000"):
        words = ["--training.micro-batch-tokens", tokens, "--training.epochs", "1", "--comparison.prompts", "0"]
        assert start(case, tmp_path / tokens, monkeypatch, *words) == 0
        metrics = read_run(RUN).metrics
        losses.append([row.loss for row in (*metrics.train, *metrics.evaluations)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
