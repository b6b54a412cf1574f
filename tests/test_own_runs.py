"""Whole runs with an objective of a user's own: trained, gone on with, told of; its code is run when it is named."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from kill_runs import RUN, TRAIN, outcome_of
from test_resuming import sends
from tiny_runs import write_model, write_pairs

import tiltlm
from tiltlm.cli import main
from tiltlm.errors import ConfigError
from tiltlm.objectives.own_file import read_own
from tiltlm.pipeline.own_objective import COPY
from tiltlm.runs.run_files import read_run

OWN = """
from pathlib import Path
from tiltlm import LossOutput, Needs, objective, sides
Path("ran").touch()

@objective(Needs(squares=True, live=True, counts=True), what="Mine: of whole distributions.", detaches=True)
def mine(scored, *, beta=0.1):
    certain_N = scored.sums(scored.log_squares_T).exp() - scored.logps_N
    weights_P = certain_N.unflatten(0, (-1, 2)).sum(1).sigmoid()
    rewards_N = beta * (scored.log_ratios() + 0.1 * scored.sums(scored.reference_kl_T))
    chosen_P, rejected_P = sides(rewards_N)
    return LossOutput(weights_P.detach() * (rejected_P - chosen_P).exp().log1p(), rewards_N.detach())
"""
NAMED = ["--loss.name", "my.py:mine"]
RESUME = ["train", "--resume", str(RUN)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    """A working folder with a tiny model, pairs and an objective; reports have no curves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    write_model(Path("model"))
    write_pairs(Path("pairs.jsonl"), 24)
    Path("my.py").write_text(OWN)
    return tmp_path


def start(*words: str) -> int:
    return main(["train", *TRAIN, "--training.epochs", "1", "--training.max-steps", "4", *words])


def stopped_at(step: int, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    with monkeypatch.context() as patch:
        sends(signal.SIGTERM, step, patch)
        assert start(*words) == 130


@pytest.mark.parametrize(
    ("loss", "precision"),
    [
        (["wpo"], "bfloat16"),
        (["tdpo2"], "bfloat16"),
        (["tr_dpo", "--loss.alpha", "0.3"], "bfloat16"),
        (["tr_dpo", "--loss.alpha", "1", "--loss.update-every", "3"], "float32"),
        (["my.py:mine"], "float32"),
    ],
)
def test_it_goes_on_to_the_same_bits(
    here: Path, loss: list[str], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of objectives that look at more than log-probabilities; between two updates of a reference, too."""
    words = ["--loss.name", *loss, "--model.precision", precision]
    assert start(*words) == 0
    wanted = outcome_of(here)
    RUN.rename("before")
    stopped_at(2, monkeypatch, *words)
    assert main([*RESUME, *(NAMED if loss == ["my.py:mine"] else [])]) == 0
    assert outcome_of(here) == wanted


def test_a_run_says_what_its_objective_was_and_keeps_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(*NAMED, "--loss.beta", "0.3") == 0
    said = capsys.readouterr().out
    assert "The objective my.py:mine was tried on random examples: losses and rewards, gradient" in said
    assert "the reference is a second model at work: " in said
    assert (RUN / COPY).read_text() == OWN
    run = read_run(RUN)
    assert run.objective is not None and run.outcome is not None and run.summary is not None
    assert run.objective.digest == read_own("my.py:mine").digest
    assert run.outcome.checks[0].name == "losses and rewards"
    assert run.summary.loss_settings == {"beta": 0.3}
    card = (RUN / "model" / "README.md").read_text()
    assert "Trained on preferences by tiltlm. Mine: of whole distributions." in card
    assert "**Objective**: my.py:mine, beta 0.3" in card


def test_looking_at_a_run_runs_none_of_its_code(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(*NAMED, "--checkpoint.every-steps", "2") == 0
    Path("ran").unlink(missing_ok=True)
    page = (RUN / "report.html").read_text()
    (RUN / "report.html").unlink()
    for code in ("raise SystemExit(7)", None):
        if code is None:
            Path("my.py").unlink()
        else:
            Path("my.py").write_text(code)
        assert main(["report", str(RUN)]) == 0
        assert main(["compare", str(RUN)]) == 0
        assert main(["compare", str(RUN), "--prompt", "Say 1:"]) == 0
    assert (RUN / "report.html").read_text() == page and "my.py:mine" in page
    assert main(["export", str(RUN), "exported", "--checkpoint", "last"]) == 0
    assert not Path("ran").exists()


def test_going_on_asks_for_the_code_by_name_and_for_the_same(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped_at(2, monkeypatch, *NAMED)
    Path("ran").unlink(missing_ok=True)
    assert main(RESUME) == 2
    said = capsys.readouterr().err
    assert (
        "an objective of a user's own, `my.py:mine`, whose code is run only where it is named: say --loss.name" in said
    )
    assert not Path("ran").exists()
    with pytest.raises(ConfigError, match="whose code is run only where it is named"):
        tiltlm.train(resume=RUN)
    Path("my.py").write_text(OWN.replace("0.1 *", "0.2 *"))
    assert main([*RESUME, *NAMED]) == 1
    said = capsys.readouterr().err
    assert "objective: my.py:mine, " in said and "--allow objective" in said
    assert main([*RESUME, *NAMED, "--allow", "objective"]) == 0
    outcome = read_run(RUN).outcome
    assert outcome is not None and "objective: my.py:mine" in outcome.resumed[0].differences[0]
    assert "0.2 *" in (RUN / COPY).read_text()


def test_it_can_be_planned_and_a_sweep_says_that_it_takes_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model.path", "model", "--data.train", "pairs.jsonl", *NAMED]
    assert main(["plan", *words, "--loss.beta", "0.3"]) == 0
    Path("ran").unlink(missing_ok=True)
    Path("sweep.toml").write_text('[data]\ntrain = "pairs.jsonl"\n[loss]\nname = "my.py:mine"\n')
    for swept in (["my.py:mine"], ["my.py:mine,ipo"]):
        assert main(["sweep", *words[:-1], *swept, "--loss.beta", "0.1,0.2"]) == 2
    assert main(["sweep", "sweep.toml", "--training.learning-rate", "1e-6,1e-5"]) == 2
    assert capsys.readouterr().err.count("`my.py:mine`, an objective of a user's own, and a sweep takes those") == 3
    assert not Path("ran").exists()


def test_a_failing_check_ends_it_before_any_work(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.py").write_text(OWN.replace(", detaches=True", ""))
    assert start(*NAMED) != 0
    said = capsys.readouterr().err
    assert "the objective `my.py:mine` failed its check `gradient`" in said and "detaches=True" in said
    assert not RUN.exists()


def test_a_function_from_python_trains_and_goes_on(here: Path) -> None:

    def mine(scored: tiltlm.Scored, *, beta: float = 0.1) -> tiltlm.LossOutput:
        rewards_N = beta * scored.log_ratios()
        chosen_P, rejected_P = tiltlm.sides(rewards_N)
        return tiltlm.LossOutput((rejected_P - chosen_P).exp().log1p(), rewards_N.detach())

    table: dict[str, dict[str, Any]] = {
        "loss": {"beta": 0.5},
        "model": {"path": "model", "precision": "float32"},
        "training": {"max_steps": 2},
        "comparison": {"prompts": 0},
    }
    run = tiltlm.train(table, train=write_pairs(Path("pairs.jsonl"), 12), objective=mine)
    same = tiltlm.train(
        {**table, "loss": {"name": "sigmoid", "beta": 0.5}, "run": {"name": "same"}}, train="pairs.jsonl"
    )
    assert run.summary.final_loss == pytest.approx(same.summary.final_loss, abs=1e-6)
    settings = json.loads((run.folder / "config.json").read_text())
    assert settings["loss"] == {"name": "given:mine", "beta": 0.5}
    again = tiltlm.train(resume=run.folder, objective=mine)
    assert again.summary.final_loss == run.summary.final_loss
    with pytest.raises(ConfigError, match=r"objective=\.\.\.\) if you trust it"):
        tiltlm.train(resume=run.folder)
