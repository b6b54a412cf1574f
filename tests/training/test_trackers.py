"""Trackers: what they are told is what metrics.jsonl has, and nothing that they do stops a run."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import sys
import threading
import types
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_sweeps import prepare, settings
from tiny_sweeps import swept as sweep_over

import tiltlm
from tiltlm.config import Config, ModelConfig, RunConfig
from tiltlm.config.resuming import Resume
from tiltlm.config.tracker_names import TRACKERS
from tiltlm.errors import ConfigError, PackageError
from tiltlm.pipeline.reporter import LogReporter
from tiltlm.pipeline.run import train
from tiltlm.runs.folder import MARKER
from tiltlm.runs.rows import EvalRow, TrainRow
from tiltlm.runs.run_files import read_run
from tiltlm.training import trackers
from tiltlm.training.observers import Row
from tiltlm.training.stop import StopRequest
from tiltlm.training.tracker_adapters import ADAPTERS, TrackedRun
from tiltlm.training.trackers import figures_of, flat_settings, require_trackers, tracked, tracked_name

TRAIN = TrainRow(
    loss=0.5, margin=1.0, step=1, epoch=0.25, gradient_norm=2.0, learning_rate=1e-6, examples=4, tokens=9, seconds=0.1
)
EVAL = EvalRow(loss=0.4, accuracy=0.5, accuracy_interval=(0.2, 0.8), step=1, epoch=0.25, examples=5, seconds=0.2)
FIGURES = {"eval/loss": 0.4, "eval/accuracy": 0.5, "eval/accuracy_low": 0.2, "eval/accuracy_high": 0.8}


def told(*names: str, folder: Path, rows: tuple[Row, ...] = (TRAIN, EVAL), status: str = "completed") -> None:
    """Tells trackers of rows, as a run does."""
    config = Config(run=RunConfig(name="one", trackers=names))
    with tracked(folder, config, lambda: status) as observers:
        for row in rows:
            for observer in observers:
                observer(row)


class Fake:
    """A tracker that keeps what it is asked, or does something else at one of the calls."""

    def __init__(self, at: str = "", act: Any = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._at, self._act = at, act

    def _call(self, name: str, given: Any) -> None:
        self.calls.append((name, given))
        if name == self._at:
            self._act()

    def start(self, run: TrackedRun) -> str:
        self._call("start", run)
        return run.id or "new"

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._call("log", (step, dict(figures)))

    def finish(self, status: str) -> None:
        self._call("finish", status)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a fake in the place of a tracker."""

    def put(tracker: Fake, name: str = "wandb") -> Fake:
        monkeypatch.setitem(ADAPTERS, name, lambda: tracker)
        return tracker

    return put


def test_rows_become_flat_numbers() -> None:
    assert figures_of(EVAL) == FIGURES | {"eval/epoch": 0.25, "eval/examples": 5.0, "eval/seconds": 0.2}
    assert figures_of(TRAIN)["train/margin"] == 1.0
    assert "train/accuracy" not in figures_of(TRAIN), "it was not measured"
    assert "train/loss" not in figures_of(replace(TRAIN, loss=float("nan")))


def test_settings_are_named_in_full_and_hold_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "geheim-12345")
    config = Config(model=ModelConfig(path="https://user:geheim-12345@host/model"))
    flat = flat_settings(config)
    assert flat["loss.beta"] == 0.1 and flat["training.learning_rate"] == 1e-6 and flat["run.trackers"] == []
    assert "geheim" not in json.dumps(flat) and flat["model.path"] == "https://***@host/model"


def test_a_tracker_is_told_all_in_order_and_how_the_run_ended(fake: Any, tmp_path: Path) -> None:
    one = fake(Fake())
    told("wandb", folder=tmp_path, status="interrupted")
    (start, first, second, end) = one.calls
    assert start[1].name == "one" and start[1].id is None and start[1].group is None
    assert start[1].folder == tmp_path / "trackers" / "wandb" and start[1].folder.is_dir()
    assert (first[1][0], second[1][0]) == (1, 1) and FIGURES.items() <= second[1][1].items()
    assert end == ("finish", "interrupted")


def test_a_run_that_goes_on_keeps_its_id_and_tells_no_row_twice(fake: Any, tmp_path: Path) -> None:
    first = tuple(replace(TRAIN, step=step) for step in (1, 2, 3))
    fake(Fake())
    told("wandb", folder=tmp_path, rows=(*first, replace(EVAL, step=2)))
    again = fake(Fake())
    further = (replace(TRAIN, step=3), replace(TRAIN, step=4), replace(EVAL, step=2), replace(EVAL, step=4))
    told("wandb", folder=tmp_path, rows=further)
    assert again.calls[0][1].id == "new"
    assert [(step, "eval/loss" in figures) for call, (step, figures) in again.calls[1:3]] == [(4, False), (4, True)]
    assert [call for call, _ in again.calls] == ["start", "log", "log", "finish"]


@pytest.mark.parametrize("at", ["start", "log", "finish"])
@pytest.mark.parametrize("error", [OSError("no network"), RuntimeError("broken"), SystemExit(1)])
def test_one_that_fails_is_warned_of_once_and_stops_nothing(
    at: str, error: BaseException, fake: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    failing, other = fake(Fake(at, fail)), fake(Fake(), "mlflow")
    told("wandb", "mlflow", folder=tmp_path, rows=(TRAIN, EVAL, replace(TRAIN, step=2)))
    assert [call for call, _ in other.calls] == ["start", "log", "log", "log", "finish"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith(f"the tracker wandb failed ({type(error).__name__}: {error})")
    assert [call for call, _ in failing.calls].count(at) == 1


@pytest.mark.parametrize("at", ["start", "log", "finish"])
def test_one_that_hangs_is_waited_for_no_longer_than_said(
    at: str, fake: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "PATIENCE", 0.1)
    freed = threading.Event()
    fake(Fake(at, freed.wait))
    told("wandb", folder=tmp_path)
    (record,) = caplog.records
    assert "the tracker wandb did not end within 0.1 s" in record.message
    freed.set()


def test_one_that_falls_far_behind_is_given_up(
    fake: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "FURTHEST_BEHIND", 3)
    freed = threading.Event()
    fake(Fake("start", freed.wait))
    told("wandb", folder=tmp_path, rows=(TRAIN,) * 9)
    (record,) = caplog.records
    assert "is 3 rows behind" in record.message
    freed.set()


def test_what_is_not_there_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, packages in TRACKERS.items():
        for package in packages:
            monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(PackageError, match=rf'run.trackers {name} needs .* pip install "tiltlm\[{name}\]"'):
            require_trackers([name])
    with pytest.raises(PackageError, match=r"run.trackers wandb needs wandb"):
        tiltlm.train({"run": {"trackers": ["wandb"]}}, model="nowhere", train="nothing.jsonl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["wandbb"], r"run.trackers knows no tracker `wandbb`. Did you mean `wandb`\?"),
        (["aim"], "run.trackers knows no tracker `aim`. There are: trackio"),
        (["wandb", "wandb"], "run.trackers names `wandb` twice"),
        ("wandb", "run.trackers is a list of strings, not 'wandb'"),
    ],
)
def test_names_are_those_of_trackers(names: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RunConfig(trackers=names)


# What they wrote, read back


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    return prepare(tmp_path)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What event files hold: by tag, steps and values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_keeps_both_files_of_a_run_that_went_on_within_a_second(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    pytest.importorskip("tensorboardX")
    for steps in ((1, 2), (3,)):
        tracker = ADAPTERS["tensorboard"]()
        tracker.start(TrackedRun("one", {}, tmp_path, id=None if 1 in steps else "one"))
        for step in steps:
            tracker.log(step, {"train/loss": float(step)})
        tracker.finish("completed")
    assert scalars(tmp_path)["train/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_tensorboard_has_every_row_also_of_a_run_that_went_on(here: Path) -> None:
    pytest.importorskip("tensorboard")
    pytest.importorskip("tensorboardX")
    base = settings(here)
    config = replace(base, run=replace(base.run, name="one", trackers=("tensorboard",)))
    steps = 0

    def stop(row: Row) -> None:
        nonlocal steps
        steps += isinstance(row, TrainRow)
        if steps == 3:
            request.requested = True

    request = StopRequest()
    assert not train(config, (), LogReporter(), (stop,), stop=request).summary.completed
    run = train(config, (), LogReporter(), resume=Resume(here / "runs" / "one"))
    metrics = read_run(run.folder).metrics
    found = scalars(run.folder / "trackers" / "tensorboard")
    for tag, wanted in (
        ("train/loss", {row.step: row.loss for row in metrics.train}),
        ("eval/margin", {row.step: row.margin for row in metrics.evaluations}),
    ):
        assert len(found[tag]) == len(wanted), "no row is told twice"
        assert dict(found[tag]) == pytest.approx(wanted, rel=1e-6)


def test_trackio_has_every_row_of_a_sweeps_members_as_a_group(here: Path) -> None:
    """In a process of its own: trackio reads where its files go when it is imported."""
    require_trackers(["trackio"])
    base = settings(here)
    child = os.fork()
    if child == 0:
        os.environ |= {"TRACKIO_DIR": str(here / "trackio"), "HF_HUB_OFFLINE": "1"}
        config = replace(base, run=replace(base.run, trackers=("trackio",)))
        os._exit(0 if tiltlm.sweep(config, {"loss.beta": [0.1, 0.5]}).complete else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    (file,) = (here / "trackio").glob("*.db")
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
        configs = dict(connection.execute("SELECT run_name, config FROM configs").fetchall())
    for number, beta in ((1, 0.1), (2, 0.5)):
        name = f"00{number}-beta-{beta}"
        told = [(step, json.loads(text)) for run, step, text in rows if run == f"sweep/{name}"]
        kept = {step: figures["train/loss"] for step, figures in told if "train/loss" in figures}
        assert kept == {row.step: row.loss for row in read_run(here / "runs/sweep/members" / name).metrics.train}
        config = json.loads(configs[f"sweep/{name}"])
        assert config["loss.beta"] == beta and config["_Group"] == "sweep"


def test_wandb_is_called_as_its_own_functions_are(fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module with the signatures of wandb 0.31 for what is called, which keeps the calls."""
    calls: list[tuple[str, dict[str, Any]]] = []

    class Run:
        def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
            calls.append(("log", {"step": step, **data}))

        def finish(self, exit_code: int | None = None, quiet: bool | None = None) -> None:
            calls.append(("finish", {"exit_code": exit_code}))

    def init(
        entity: str | None = None,
        project: str | None = None,
        dir: str | None = None,
        id: str | None = None,
        name: str | None = None,
        notes: str | None = None,
        tags: Any = None,
        config: dict[str, Any] | str | None = None,
        group: str | None = None,
        mode: str | None = None,
        reinit: Any = None,
        resume: Any = None,
        settings: Any = None,
    ) -> Run:
        calls.append(("init", dict(locals())))
        return Run()

    module = types.ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    told("wandb", folder=tmp_path)
    told("wandb", folder=tmp_path, rows=(replace(TRAIN, step=2),), status="failed")
    assert [name for name, _ in calls] == ["init", "log", "log", "finish", "init", "log", "finish"]
    first, again = calls[0][1], calls[4][1]
    assert (first["project"], first["name"], first["resume"]) == ("mine", "one", "allow")
    assert first["id"] == again["id"] and len(first["id"]) == 16
    assert first["dir"] == str(tmp_path / "trackers" / "wandb") and first["config"]["loss.name"] == "sigmoid"
    assert calls[3][1] == {"exit_code": 0} and calls[6][1] == {"exit_code": 1}


def test_members_of_a_sweep_are_a_group(here: Path, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", ())
    seen: list[Fake] = []

    def make() -> Fake:
        seen.append(Fake())
        return seen[-1]

    monkeypatch.setitem(ADAPTERS, "wandb", make)
    base = settings(here, max_steps=1)
    monkeypatch.setattr("tiny_sweeps.settings", lambda _: replace(base, run=replace(base.run, trackers=("wandb",))))
    sweep_over(here, {"loss.beta": (0.1, 0.5)})
    starts = [one.calls[0][1] for one in seen]
    assert [(start.group, start.name) for start in starts] == [("sweep", "001-beta-0.1"), ("sweep", "002-beta-0.5")]
    assert [one.calls[-1] for one in seen] == [("finish", "completed")] * 2


def test_stages_of_different_runs_have_different_names(tmp_path: Path) -> None:
    """Their folders are called alike: 1-sft in one recipe, and in the next."""
    for run in ("one", "other"):
        (tmp_path / run / "stages" / "1-sft").mkdir(parents=True)
        (tmp_path / run / MARKER).touch()
        assert tracked_name(tmp_path / run / "stages" / "1-sft", "1-sft") == f"{run}/1-sft"
        assert tracked_name(tmp_path / run, run) == run
