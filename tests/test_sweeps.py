"""Sweeps: one reference pass, one page; what a failing member, an interruption and a kill leave of them."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
from safetensors.torch import load_file
from tiny_sweeps import STEPS, prepare, settings, swept

import tiltlm
from tiltlm.cli import main
from tiltlm.config import Config
from tiltlm.config.sweep_plan import SweepPlan, load_sweep, member_name
from tiltlm.config.sweeping import Range, combinations, values_given, values_of_text
from tiltlm.data.token_cache import TokenCache
from tiltlm.errors import ConfigError, RunError
from tiltlm.model.reference import ReferenceCache
from tiltlm.model.scorer import Scorer
from tiltlm.objectives import OBJECTIVES
from tiltlm.pipeline.reporter import LogReporter
from tiltlm.pipeline.sweeps.sweep import Sweep, resume_sweep, start_sweep
from tiltlm.runs.lock import locked
from tiltlm.runs.rows import EvalRow, TrainRow
from tiltlm.runs.run_files import read_run
from tiltlm.runs.sweep_folder import SweepFolder, sweep_of
from tiltlm.training.observers import Row

NINE = {"loss.name": ("sigmoid", "ipo", "simpo"), "loss.beta": (0.05, 0.1, 0.5)}
TWO = {"loss.beta": (0.1, 0.5)}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    """A working folder with a tiny model, pairs and a cache of its own; members' pages have no curves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    return prepare(tmp_path)


def statuses(sweep: Sweep) -> list[str]:
    return [member.status for member in sweep.record.members]


def results(sweep: Sweep) -> dict[str, Any]:
    """What each member came to, to the bit: weights and held-out losses."""
    found = {}
    for member in sweep.record.members:
        run = sweep.folder / "members" / member.name
        weights = {name: tensor.tolist() for name, tensor in load_file(run / "model" / "model.safetensors").items()}
        found[member.name] = (weights, [row.loss for row in read_run(run).metrics.evaluations])
    return found


def at(member: int, step: int, act: Callable[[], object]) -> Callable[[Row], None]:
    """An observer that acts once, after a step of the member of this number."""
    begun = 0

    def observe(row: Row) -> None:
        nonlocal begun
        begun += isinstance(row, EvalRow) and row.step == 0
        if begun == member and isinstance(row, TrainRow) and row.step == step:
            act()

    return observe


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


# One reference pass and one page


def test_three_objectives_by_three_betas_are_one_pass_and_one_page(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    tokenized: list[str] = []
    put, put_tokens = ReferenceCache.put, TokenCache.put

    def counted(self: ReferenceCache, columns: Any, sequences: Any, values: Any) -> None:
        numbers = list(sequences)
        computed.extend(numbers)
        put(self, columns, numbers, values)

    def counted_tokens(self: TokenCache, key: str, selection: Any) -> Any:
        tokenized.append(key)
        return put_tokens(self, key, selection)

    monkeypatch.setattr(ReferenceCache, "put", counted)
    monkeypatch.setattr(TokenCache, "put", counted_tokens)
    scorers: WeakSet[Scorer] = WeakSet()
    models: list[int] = []
    made = Scorer.__init__

    def known(self: Scorer, *given: Any) -> None:
        made(self, *given)
        scorers.add(self)

    monkeypatch.setattr(Scorer, "__init__", known)

    def count_models(row: Row) -> None:
        if isinstance(row, EvalRow) and row.step == 0:
            models.append(len(scorers))

    sweep = swept(here, NINE, observers=(count_models,))
    assert statuses(sweep) == ["completed"] * 9 and sweep.complete and not sweep.failed
    assert len(computed) == 2 * 40, "each sequence of the 40 pairs is scored by the reference once"
    assert len(tokenized) == 1
    assert models == [1] * 9, "a member's model is gone before the next is loaded"
    assert [page.relative_to(here) for page in here.glob("runs/sweep/*.html")] == [Path("runs/sweep/report.html")]
    page = sweep.page.read_text(encoding="utf-8")
    assert page.count('<svg class="key"') == 9 and "of 36 comparisons" in page.lower()
    assert [member.name for member in sweep.record.members][3:5] == ["004-ipo-beta-0.05", "005-ipo-beta-0.1"]
    rows = list(csv.DictReader((sweep.folder / "table.csv").read_text(encoding="utf-8").splitlines()))
    table = json.loads((sweep.folder / "table.json").read_text(encoding="utf-8"))["members"]
    assert [row["loss.beta"] for row in rows] == ["0.05", "0.1", "0.5"] * 3
    for row, same in zip(rows, table, strict=True):
        evaluation = read_run(sweep.folder / "members" / row["name"]).evaluation
        assert evaluation is not None and evaluation.margin is not None
        assert float(row["accuracy"]) == same["accuracy"] == evaluation.figures.accuracy
        assert float(row["margin"]) == same["margin"] == evaluation.margin.mean
        mean = sum(pair.margin for pair in evaluation.pairs) / len(evaluation.pairs)
        assert mean == pytest.approx(evaluation.margin.mean, abs=1e-6)


def test_members_are_ordinary_runs(here: Path) -> None:
    sweep = swept(here, TWO)
    again = tiltlm.train(here / "runs/sweep/members/001-beta-0.1/config.json")
    assert (again.folder / "metrics.jsonl").is_file()
    member = load_file(here / "runs/sweep/members/001-beta-0.1/model/model.safetensors")
    alone = load_file(again.model / "model.safetensors")
    assert all((member[name] == alone[name]).all() for name in member)
    assert sweep_of(here / "runs/sweep/members/001-beta-0.1") == "sweep"
    assert sweep_of(again.folder) != "runs"
    assert main(["report", str(sweep.folder)]) == 0


# Which members there are


def test_a_setting_that_an_objective_does_not_read_makes_no_member_of_its_own() -> None:
    found, notes = combinations(Config(), {"loss.name": ("sigmoid", "ipo"), "loss.label_smoothing": (0.0, 0.1, 0.2)})
    assert [str(one) for one in found] == [
        "loss.name sigmoid, loss.label_smoothing 0",
        "loss.name sigmoid, loss.label_smoothing 0.1",
        "loss.name sigmoid, loss.label_smoothing 0.2",
        "loss.name ipo",
    ]
    assert notes == ["loss.label_smoothing has no effect on `ipo`: its members go without it."]
    assert found[-1].config.loss.label_smoothing is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing is swept"),
        (["--loss.beta", "0.1..0.5"], "loss.beta is a range, 0.1..0.5: say how many members"),
        (["--loss.beta", "0.1,0.1"], "loss.beta names 0.1 twice"),
        (["--loss.beta", "0.1,,0.5"], "loss.beta lacks a value beside a comma: `0.1,,0.5`"),
        (["--loss.beta", "0.1,"], "loss.beta lacks a value beside a comma"),
        (["--loss.name", ",ipo"], "loss.name lacks a value beside a comma"),
        (["--loss.beta", "0.1,x"], "loss.beta is a number or unset, not `x`"),
        (["--loss.beta", "0.1,-1"], "the combination of loss.beta -1 is refused: loss.beta must be above 0"),
        (["--loss.beta", "0.1,0.2", "--loss.beta", "0.3,0.4"], "--loss.beta was given twice"),
        (["--loss.beta", "0.1,0.2", "--loss.beta", "0.3"], "--loss.beta was given twice"),
        (["--loss.nme", "sigmoid,ipo"], "there is no option `--loss.nme`. Did you mean `--loss.name`"),
        (["--loss.name", "sigmoid,ipoo"], "loss.name cannot be `ipoo`"),
        (["--run.name", "a,b"], "run.name belongs to the whole sweep"),
        (["--checkpoint.keep", "1,2"], "checkpoint.keep does not change what a run comes to"),
        (
            ["--loss.name", "ipo,simpo", "--loss.label-smoothing", "0,0.1"],
            "loss.label_smoothing has no effect on `ipo` or `simpo`: remove it, or add `sigmoid`",
        ),
        (
            ["--training.warmup-steps", "1,9", "--training.max-steps", "4"],
            "the combination of training.warmup_steps 9 is refused: training.warmup_steps is 9",
        ),
        (["--loss.beta", "0.1,0.2", "--metric", "loss"], "--metric has no effect without --trials"),
        (["--loss.beta", "0.1,0.2", "--retry-failed"], "--retry-failed has no effect without --resume"),
        (["--loss.beta", "0.1,0.2", "--run.overwrite"], "run.overwrite has no effect on a sweep"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_any_work(
    here: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--data.train", "pairs.jsonl", "--model.path", "m"]
    assert main(["sweep", *base, *words]) == 2
    assert said in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("option", "text", "values"),
    [
        ("loss.beta", "0.05,0.1", (0.05, 0.1)),
        ("training.epochs", "1,2", (1, 2)),
        ("training.learning_rate", "1e-7..1e-5", Range(1e-7, 1e-5, False)),
        ("training.batch_pairs", "8..32", Range(8, 32, True)),
        ("data.max_train_pairs", "None,100", (None, 100)),
        ("training.activation_checkpointing", "true,false", (True, False)),
        ("model.path", "gpt2, embedded", ("gpt2", "embedded")),
        ("loss.name", "all", tuple(OBJECTIVES)),
    ],
)
def test_values_and_ranges_are_read_as_the_option_takes_them(option: str, text: str, values: object) -> None:
    assert values_of_text(option, text) == values
    if isinstance(values, tuple):
        assert values_given(option, list(values)) == values


def test_ranges_of_rates_are_logarithmic_and_those_of_counts_and_shares_from_zero_even() -> None:
    assert Range(1e-7, 1e-5, False).logarithmic
    assert not Range(0.0, 0.4, False).logarithmic
    assert not Range(8, 32, True).logarithmic


def test_names_of_folders_are_short_and_plain() -> None:
    assert member_name(3, {"loss.name": "ipo", "loss.beta": 0.1}) == "003-ipo-beta-0.1"
    assert member_name(1, {}) == "001"
    assert re.fullmatch(r"012-train-[\w.-]{1,60}", member_name(12, {"data.train": "../a b/" + "x" * 99}))


def test_a_file_may_hold_what_is_swept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
[data]
train = "pairs.jsonl"
[model]
path = "m"
precision = "float32"
[sweep]
trials = 3
metric = "loss"
[sweep.options]
training.learning_rate = "1e-4..1e-2"
"loss.beta" = [0.1, 0.5]
"""
    Path("sweep.toml").write_text(text)
    table = load_sweep(Path("sweep.toml"))
    assert table.swept == {"training.learning_rate": Range(1e-4, 1e-2, False), "loss.beta": (0.1, 0.5)}
    assert (table.trials, table.metric) == (3, "loss")
    assert main(["train", "sweep.toml"]) == 2
    assert "[sweep] is what `tiltlm sweep` reads" in capsys.readouterr().err
    Path("sweep.toml").write_text(text.replace("trials", "trails"))
    assert main(["sweep", "sweep.toml"]) == 2
    assert "unknown key in [sweep]: `trails`. Did you mean `trials`?" in capsys.readouterr().err
    words = ["--loss.name", "sigmoid,ipo", "--training.epochs", "2", "--dry-run"]
    Path("grid.toml").write_text(text.partition("[sweep]")[0] + '[sweep.options]\n"loss.beta" = [0.1, 0.5]\n')
    assert main(["sweep", "grid.toml", *words]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("00")] == [
        f"00{number}-beta-{beta}-{name}: loss.beta {beta}, loss.name {name}; 6 steps"
        for number, beta, name in ((1, 0.1, "sigmoid"), (2, 0.1, "ipo"), (3, 0.5, "sigmoid"), (4, 0.5, "ipo"))
    ]
    assert not Path("runs").exists()


# What a sweep survives


def test_a_member_that_fails_is_recorded_and_the_others_go_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["--data.train", "pairs.jsonl", "--model.path", "m", "--model.precision", "float32"]
    base += ["--training.max-steps", "2", "--comparison.prompts", "0"]
    assert main(["sweep", *base, "--training.learning-rate", "1e-3,1e30,1e-4"]) == 1
    record = SweepFolder(Path("runs/sweep")).read()
    assert [member.status for member in record.members] == ["completed", "failed", "completed"]
    assert record.members[1].message is not None and "not finite" in record.members[1].message
    said = capsys.readouterr()
    assert "1 member failed; to try again: tiltlm sweep --resume runs/sweep --retry-failed" in said.out
    page = Path("runs/sweep/report.html").read_text(encoding="utf-8")
    assert "failed: 2." in page and "not finite" in page
    assert main(["sweep", "--resume", "runs/sweep"]) == 1, "nothing is left, and one has failed"
    assert main(["sweep", "--resume", "runs/sweep", "--retry-failed"]) == 1
    assert [member.status for member in SweepFolder(Path("runs/sweep")).read().members][1] == "failed"


def test_an_interrupted_sweep_goes_on_where_it_was_to_the_same_bits(here: Path) -> None:
    whole = swept(here, TWO, name="whole")
    begun: list[int] = []

    def count(row: Row) -> None:
        if isinstance(row, TrainRow):
            begun.append(row.step)

    stopped = swept(here, TWO, name="stopped", observers=(at(2, 3, interrupt),))
    assert statuses(stopped) == ["completed", "interrupted"] and not stopped.complete
    goes_on = tiltlm.sweep(resume=stopped.folder, observers=[count])
    assert statuses(goes_on) == ["completed", "completed"]
    assert begun == [STEPS], "the first member is not repeated, and the second goes on from its checkpoint"
    assert results(goes_on) == results(whole)


def test_a_killed_sweep_goes_on_where_it_was_to_the_same_bits(here: Path) -> None:
    whole = swept(here, TWO, name="whole")
    child = os.fork()
    if child == 0:
        swept(here, TWO, name="killed", observers=(at(2, 3, lambda: os.kill(os.getpid(), signal.SIGKILL)),))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    killed = here / "runs" / "killed"
    assert [member.status for member in SweepFolder(killed).read().members] == ["completed", "running"]
    goes_on = resume_sweep(killed, LogReporter())
    assert results(goes_on) == results(whole)


def test_the_plan_of_a_sweep_cannot_change(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = swept(here, {"loss.beta": (0.1,)})
    resume = ["sweep", "--resume", str(sweep.folder)]
    for words in (["--loss.beta", "0.1,0.5"], ["--training.epochs", "2"], ["--trials", "3"], ["--dry-run"]):
        assert main([*resume, *words]) == 2
        assert f"{words[0]} has no effect on a sweep that goes on" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="has its plan"):
        tiltlm.sweep(resume=sweep.folder, trials=3)
    assert main(["sweep", "--resume", "nowhere"]) == 1
    assert "there is no sweep.json in nowhere" in capsys.readouterr().err


def test_one_process_at_a_time_works_on_a_sweep(here: Path) -> None:
    sweep = swept(here, {"loss.beta": (0.1,)})
    with locked(sweep.folder, "sweep"), pytest.raises(RunError, match="another process is at work on the sweep"):
        resume_sweep(sweep.folder, LogReporter())


def test_a_second_sweep_takes_the_next_name(here: Path) -> None:
    grid = {"loss.beta": [0.1, 0.5]}
    plain: dict[str, dict[str, Any]] = {
        "training": {"max_steps": 1},
        "comparison": {"prompts": 0},
        "model": {"precision": "float32"},
    }
    folders = [tiltlm.sweep(plain, grid, model=str(here / "m"), train="pairs.jsonl").folder for _ in range(2)]
    assert folders == [Path("runs/sweep"), Path("runs/sweep-2")]
    with pytest.raises(RunError, match=r"there is a sweep in .*runs/sweep already"):
        start_sweep(SweepPlan(settings(here), {"loss.beta": (0.1, 0.5)}), (), LogReporter())
