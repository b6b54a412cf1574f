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
from tiny_runs import write_pairs

import tiltlm.pipeline.crediting as crediting
from tiltlm.cli import main
from tiltlm.config import Config, LossConfig, ModelConfig
from tiltlm.distributed.ranks import Ranks
from tiltlm.errors import ConfigError
from tiltlm.pipeline.crediting import CREDIT, require_one_process
from tiltlm.pipeline.setup import set_up
from tiltlm.report.summary import summarise
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


def stopped_at_4(train: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.step

    def stopped(self: Trainer, *given: Any) -> object:
        if self.progress.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopped)
        assert main([*train, "--run.overwrite"]) == 130


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scores_that_words_foretell_are_credited_and_learnt(
    here: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "--training.epochs", "20", "--model.precision", precision]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "credit by token: the model's states foretell " in said
    change = summarise(read_run(RUN)).eval_loss_change
    assert change is not None and change.interval is not None and change.interval[1] < 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_that_goes_on_takes_the_credit_that_it_began_with(
    here: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = [*TRAIN, "--training.max-steps", "12", "--model.precision", precision]
    assert main(train) == 0
    whole, credit = weights(), load_file(RUN / CREDIT)
    stopped_at_4(train, monkeypatch)
    assert all(np.array_equal(own, credit[name]) for name, own in load_file(RUN / CREDIT).items())

    def never(*given: object) -> None:
        raise AssertionError("the credit is found anew")

    monkeypatch.setattr(crediting, "_found", never)
    assert main(["train", "--resume", str(RUN)]) == 0
    assert all(np.array_equal(own, whole[name]) for name, own in weights().items())


def test_a_run_does_not_go_on_with_other_scores(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped_at_4([*TRAIN, "--training.max-steps", "12"], monkeypatch)
    before = load_file(RUN / CREDIT)
    Path("lists.jsonl").write_text(Path("lists.jsonl").read_text().replace("3.0", "7.0"))
    assert main(["train", "--resume", str(RUN)]) == 1
    assert "training examples" in " ".join(capsys.readouterr().err.split())
    assert all(np.array_equal(own, before[name]) for name, own in load_file(RUN / CREDIT).items())


def test_a_run_can_be_planned(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *TRAIN[1:]]) == 0
    assert "reference" in capsys.readouterr().out
    assert not RUN.exists()


def test_more_answers_than_there_is_memory_for_are_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crediting, "available_memory", lambda device: 10_000)
    assert main(TRAIN) == 2
    assert "rounds.answers" in " ".join(capsys.readouterr().err.split())


def test_several_ranks_are_refused(here: Path) -> None:
    config = Config(model=ModelConfig(path="tiny"), loss=LossConfig(name="pcl"))
    require_one_process(set_up(config))
    with pytest.raises(ConfigError, match="one process alone"):
        require_one_process(set_up(config, Ranks(0, 2)))


def test_values_that_foretell_nothing_are_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in Path("lists.jsonl").read_text().splitlines()]
    for row, scores in zip(rows, np.random.default_rng(0).normal(size=(len(rows), 3)), strict=True):
        row["completions"], row["scores"] = [" it is good", " it is good so", " it is good yes"], scores.tolist()
    Path("lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([*TRAIN, "--training.max-steps", "1"]) == 0
    assert "foretell next to nothing" in " ".join(capsys.readouterr().out.split())


def test_an_objective_that_asks_for_credit_without_scores_is_told(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own.py").write_text(
        "from tiltlm import LossOutput, Needs, objective, sides\n\n\n@objective(Needs(tokens=True, credit=True))\n"
        "def own(scored, *, beta=0.1):\n"
        "    rewards_N = beta * scored.sums(scored.token_log_ratios() * scored.credit_T)\n"
        "    chosen_P, rejected_P = sides(rewards_N)\n"
        "    return LossOutput(rejected_P - chosen_P, rewards_N.detach())\n"
    )
    write_pairs(Path("pairs.jsonl"), 12)
    words = ["--data.train", "pairs.jsonl", "--loss.name", "own.py:own"]
    assert main([*TRAIN, *words]) == 2
    assert 'Needs(scores="value", credit=True)' in " ".join(capsys.readouterr().err.split())


def test_a_temperature_that_is_not_measured_at_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--training.temperature", "0.8", "--training.max-steps", "1"]
    asked = ["--comparison.prompts", "1", "--comparison.samples", "1", "--comparison.max-new-tokens", "2"]
    note = "training is at temperature 0.8 (training.temperature), and answers are measured at 1"
    assert main([*TRAIN, *words, *asked]) == 0
    assert note in " ".join(capsys.readouterr().out.split())
    assert main([*TRAIN, *words, *asked, "--comparison.temperature", "0.8", "--run.overwrite"]) == 0
    assert note not in " ".join(capsys.readouterr().out.split())


def test_lists_of_one_prompt_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = Path("lists.jsonl").read_text().splitlines(keepends=True)
    Path("lists.jsonl").write_text(rows[0] * 1)
    Path("held_out.jsonl").write_text(rows[1])
    assert main([*TRAIN, "--data.eval", "held_out.jsonl"]) != 0
    assert "there is one alone" in " ".join(capsys.readouterr().err.split())
