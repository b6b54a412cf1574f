"""Trials: draws follow from plan and seed, the hopeless are stopped, and what cannot be compared is refused."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_sweeps import prepare, settings

import tiltlm
from tiltlm.cli import main
from tiltlm.config import Config
from tiltlm.config.sweep_plan import SweepPlan
from tiltlm.config.sweeping import Range, Values
from tiltlm.errors import ConfigError, PackageError
from tiltlm.pipeline.reporter import LogReporter
from tiltlm.pipeline.sweeps.sweep import resume_sweep, start_sweep
from tiltlm.pipeline.sweeps.trials import TrialSearch, require_optuna
from tiltlm.runs.rows import EvalRow, TrainRow, metrics_line
from tiltlm.runs.sweep_folder import MemberRecord, Status, SweepFolder
from tiltlm.training.observers import Row
from tiltlm.training.stop import StopRequest

RATES: dict[str, Values] = {"training.learning_rate": Range(1e-5, 1e-2, False), "loss.beta": (0.1, 0.5)}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    """A working folder with a tiny model, pairs and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    return prepare(tmp_path)


def plan(here: Path, name: str, trials: int, swept: dict[str, Values] | None = None) -> SweepPlan:
    base = settings(here)
    return SweepPlan(replace(base, run=replace(base.run, name=name)), swept or RATES, trials)


def test_an_interrupted_search_draws_what_it_would_have_drawn(here: Path) -> None:
    whole = start_sweep(plan(here, "whole", 3), (), LogReporter())
    steps = 0

    def interrupt(row: Row) -> None:
        nonlocal steps
        steps += isinstance(row, TrainRow)
        if steps == 6:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = start_sweep(plan(here, "stopped", 3), (), LogReporter(), (interrupt,))
    assert [member.status for member in stopped.record.members] == ["completed", "interrupted"]
    assert not stopped.complete and "1 not begun or at work" in stopped.page.read_text(encoding="utf-8")
    goes_on = resume_sweep(stopped.folder, LogReporter())
    assert goes_on.complete
    for one, same in zip(goes_on.record.members, whole.record.members, strict=True):
        assert (one.settings, one.value, one.status) == (same.settings, same.value, same.status)
    rates = [member.settings["training.learning_rate"] for member in whole.record.members]
    assert len(set(rates)) == 3 and all(1e-5 <= rate <= 1e-2 for rate in rates)
    assert all(member.value is not None and 0 <= member.value <= 1 for member in whole.record.members)


def test_combinations_that_were_all_drawn_end_the_search(here: Path) -> None:
    base = settings(here, max_steps=1)
    found = tiltlm.sweep(base, {"loss.beta": [0.1, 0.5]}, trials=4)
    assert found.complete and len(found.record.members) == 2
    assert sorted(member.settings["loss.beta"] for member in found.record.members) == [0.1, 0.5]


# What is stopped


def evaluation(step: int, accuracy: float, loss: float = 0.5) -> EvalRow:
    return EvalRow(loss=loss, accuracy=accuracy, step=step, epoch=step / 20, examples=9, seconds=0.1)


def ended(folder: SweepFolder, number: int, accuracies: list[float], status: Status = "completed") -> MemberRecord:
    """A member that came to these accuracies at steps 0, 10, 20, ..."""
    value = accuracies[-1] if status == "completed" else None
    drawn = {"training.learning_rate": 1e-5 * number, "loss.beta": 0.1}
    member = MemberRecord(number=number, name=f"{number:03d}", settings=drawn, status=status, value=value)
    folder.member(member).mkdir(parents=True)
    lines = [metrics_line(evaluation(10 * place, accuracy)) for place, accuracy in enumerate(accuracies)]
    (folder.member(member) / "metrics.jsonl").write_text("".join(lines))
    return member


@pytest.mark.parametrize(
    ("accuracies", "stopped_at"),
    [
        ([0.5, 0.3, 0.9], 10),
        ([0.5, 0.65, 0.6, 0.9], 20),
        ([0.5, 0.8, 0.8, 0.1], None),  # at the last step nothing is left to be saved
        ([0.0, 0.9, 0.9, 0.9], None),  # and before the first nothing is known
    ],
)
def test_a_member_whose_best_is_below_the_median_of_the_others_is_stopped(
    tmp_path: Path, accuracies: list[float], stopped_at: int | None
) -> None:
    folder = SweepFolder(tmp_path)
    base = replace(Config(), training=replace(Config().training, max_steps=30))
    members = [ended(folder, number, [0.5, 0.6, 0.7, 0.7]) for number in range(1, 5)]
    watched = MemberRecord(number=5, name="005", settings={"training.learning_rate": 1e-4, "loss.beta": 0.5})
    stop = StopRequest()
    watch = TrialSearch(SweepPlan(base, RATES, 9), folder).watch(watched, members, stop)
    at = None
    for place, accuracy in enumerate(accuracies):
        watch(evaluation(10 * place, accuracy))
        at = 10 * place if stop.requested and at is None else at
    assert at == stopped_at and watch.pruned == (stopped_at is not None)


def test_the_first_members_are_not_stopped_and_failed_ones_teach_nothing(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    members = [ended(folder, number, [0.5, 0.9, 0.9]) for number in range(1, 4)]
    members.append(ended(folder, 4, [0.5, 0.9], "failed"))
    watched = MemberRecord(number=5, name="005", settings={"training.learning_rate": 1e-4, "loss.beta": 0.5})
    stop = StopRequest()
    watch = TrialSearch(SweepPlan(Config(), RATES, 9), folder).watch(watched, members, stop)
    watch(evaluation(10, 0.1))
    assert not stop.requested


# What is refused


@pytest.mark.parametrize(
    ("swept", "metric", "said"),
    [
        ({"loss.name": ("sigmoid", "ipo")}, "loss", "losses of members that differ in loss.name are different"),
        ({"loss.beta": Range(0.1, 0.5, False)}, "loss", "losses of members that differ in loss.beta"),
        ({"loss.name": ("sigmoid", "ipo"), "run.seed": (0, 1)}, "margin", "margins are in units of the objective"),
        ({"loss.name": ("sigmoid", "kto")}, "accuracy", r"`sigmoid` per pair, `kto` per completion"),
        ({"training.warmup_steps": Range(0, 99, True), "training.max_steps": (9,)}, "loss", "_steps 99, .* refused"),
        ({"loss.label_smoothing": Range(0.0, 0.7, False)}, "accuracy", "0.7 is refused: loss.label_smoothing"),
    ],
)  # fmt: skip
def test_what_could_not_be_compared_or_trained_is_refused(swept: dict[str, Any], metric: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SweepPlan(Config(), swept, 5, metric).corners()


def test_trials_by_the_least_loss_may_vary_what_leaves_the_loss_alone() -> None:
    assert SweepPlan(Config(), {"training.learning_rate": Range(1e-7, 1e-5, False)}, 5, "loss").corners()
    assert SweepPlan(Config(), {"loss.name": ("sigmoid", "ipo", "simpo")}, 5, "accuracy").corners()


def test_optuna_is_asked_for_before_any_work(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(PackageError, match=r'--trials needs optuna, .*: pip install "tiltlm\[sweep\]"'):
        require_optuna()
    words = ["--data.train", "pairs.jsonl", "--model.path", "m", "--loss.beta", "0.1..0.5", "--trials", "2"]
    assert main(["sweep", *words]) == 1
    assert "pip install" in capsys.readouterr().err and not Path("runs").exists()


def test_trials_are_shown_without_being_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data.train", "pairs.jsonl", "--model.path", "m", "--loss.name", "sigmoid,ipo", "--dry-run"]
    assert main(["sweep", *words, "--training.learning-rate", "1e-7..1e-5", "--trials", "6"]) == 0
    said = "6 members, for the best held-out accuracy: loss.name of sigmoid, ipo; "
    assert said + "training.learning_rate in 1e-07..1e-05, logarithmically\n" in capsys.readouterr().out
    assert not Path("runs").exists()
