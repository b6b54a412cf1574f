"""A run that was stopped goes on to what it would have come to, to the bit; or says why it does not."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from broken_runs import leave_undrawn
from kill_runs import RUN, TRAIN, make_pattern, outcome_of
from safetensors.torch import load_file
from tiny_runs import write_model

import tiltlm
from tiltlm.cli import main
from tiltlm.runs.folder import MARKER
from tiltlm.runs.lock import locked
from tiltlm.runs.outcomes import Outcome
from tiltlm.runs.run_files import read_run
from tiltlm.training.checks import run_checks
from tiltlm.training.loop import Trainer
from tiltlm.training.observers import MetricsLog
from tiltlm.training.stop import StopRequest

PRECISIONS = ("float32", "bfloat16")
RESUME = ["train", "--resume", str(RUN)]
STEPS = 18
REPEATABLE = ["--training.deterministic"] if torch.cuda.is_available() else []


def start(*words: str, precision: str = "float32") -> int:
    return main(["train", *TRAIN, *REPEATABLE, "--model.precision", precision, *words])


def outcome() -> Outcome:
    found = read_run(RUN).outcome
    assert found is not None
    return found


def steps_kept() -> list[int]:
    return sorted(int(path.name[5:]) for path in (RUN / "checkpoints").glob("step-*"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, dict[str, Any]]]]:
    """By precision: a folder with data and model in which nothing has run, and what a run there comes to."""
    found, before = {}, Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        for precision in PRECISIONS:
            pattern = make_pattern(tmp_path_factory.mktemp(precision))
            place = pattern.with_name("unbroken")
            shutil.copytree(pattern, place)
            patch.chdir(place)
            patch.setenv("TILTLM_CACHE", str(place / "cache"))
            assert start(precision=precision) == 0
            found[precision] = (pattern, outcome_of(place))
        patch.chdir(before)
        yield found


@pytest.fixture
def here(
    tmp_path: Path, unbroken: dict[str, tuple[Path, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> Path:
    shutil.copytree(unbroken["float32"][0], tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "here"


def sends(number: int, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends this process a signal within a step."""
    real = Trainer.step

    def with_signal(self: Trainer, *arguments: Any) -> object:
        if self.progress.step + 1 == step:
            os.kill(os.getpid(), number)
        return real(self, *arguments)

    monkeypatch.setattr(Trainer, "step", with_signal)


@pytest.mark.parametrize(
    ("precision", "number", "step"),
    [
        ("float32", signal.SIGINT, 1),
        ("bfloat16", signal.SIGTERM, 5),
        ("float32", signal.SIGTERM, 12),
        ("bfloat16", signal.SIGINT, STEPS),
    ],
)
def test_after_a_signal_it_goes_on(
    here: Path,
    unbroken: dict[str, tuple[Path, dict[str, Any]]],
    precision: str,
    number: int,
    step: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the middle of a pass, at its end with an evaluation, in the last step."""
    with monkeypatch.context() as patch:
        sends(number, step, patch)
        assert start(precision=precision) == 130
    assert steps_kept()[-1] == step
    assert outcome().status == "interrupted"
    capsys.readouterr()
    assert main(RESUME) == 0
    assert f"goes on after step {step}, from {RUN}/checkpoints/step-{step:08d}" in capsys.readouterr().out
    assert outcome_of(here) == unbroken[precision][1]
    assert [resumption.step for resumption in outcome().resumed] == [step]
    assert not list(RUN.glob(".model*")) and not list(RUN.glob(".reference*"))


def test_it_goes_on_as_often_as_it_is_stopped(
    here: Path, unbroken: dict[str, tuple[Path, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, ends = ["train", *TRAIN, *REPEATABLE, "--model.precision", "float32"], []
    for step in (2, 3, 13):
        with monkeypatch.context() as patch:
            sends(signal.SIGTERM, step, patch)
            ends.append(main(words))
        words = RESUME
    assert ends == [130] * 3
    seconds = outcome().seconds
    assert main(RESUME) == 0
    assert outcome_of(here) == unbroken["float32"][1]
    assert [resumption.step for resumption in outcome().resumed] == [2, 3, 13]
    assert outcome().seconds > seconds, "the time of all that it took"


def failing(real: Callable[..., Any], call: int = 1) -> Callable[..., Any]:
    calls = [0]

    def fails(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise RuntimeError("broken off")
        return real(*arguments, **named)

    return fails


@pytest.mark.parametrize(
    ("precision", "place", "call"),
    [
        ("bfloat16", "tiltlm.model.reference.ReferenceCache.put", 1),
        ("bfloat16", "tiltlm.model.reference.ReferenceCache.put", 4),
        ("float32", "tiltlm.pipeline.optimize.run_checks", 1),
        ("bfloat16", "tiltlm.training.loop.Trainer.evaluate", 2),
        ("bfloat16", "tiltlm.pipeline.keeping.save_model", 1),
        ("bfloat16", "tiltlm.pipeline.run.evaluate", 1),
        ("float32", "tiltlm.pipeline.run.compare_answers", 1),
        ("float32", "tiltlm.pipeline.run.write_report", 1),
    ],
)
def test_after_an_error_in_any_stage_it_goes_on(
    here: Path,
    unbroken: dict[str, tuple[Path, dict[str, Any]]],
    precision: str,
    place: str,
    call: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        owner, _, name = place.rpartition(".")
        module, _, kind = owner.rpartition(".")
        target = getattr(__import__(module, fromlist=[kind]), kind)
        patch.setattr(target, name, failing(getattr(target, name), call))
        with pytest.raises(RuntimeError, match="broken off"):
            start(precision=precision)
    assert main(RESUME) == 0
    assert outcome_of(here) == unbroken[precision][1]


def test_a_run_without_a_checkpoint_begins_at_its_beginning(
    here: Path,
    unbroken: dict[str, tuple[Path, dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        sends(signal.SIGTERM, 5, patch)
        assert start("--checkpoint.every-steps", "0", "--checkpoint.every-minutes", "0") == 130
    assert not (RUN / "checkpoints").exists()
    capsys.readouterr()
    assert main(RESUME) == 0
    assert "there is no checkpoint: training begins at its beginning" in capsys.readouterr().out
    assert outcome_of(here) == unbroken["float32"][1]


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder and a cache beside it, in which a run was stopped after step 6; no test changes them."""
    place = make_pattern(tmp_path_factory.mktemp("stopped"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("TILTLM_CACHE", str(place.parent / "cache"))
        sends(signal.SIGTERM, 6, patch)
        assert start() == 130
    return place


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    """A run that was stopped after step 6; its checkpoints are of steps 4 and 6."""
    shutil.copytree(stopped_once.parent / "cache", tmp_path / "cache")
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(shutil.copytree(stopped_once, tmp_path / "here"))
    assert steps_kept() == [4, 6]
    return tmp_path / "here"


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in RUN.rglob("*") if path.is_file()}


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    stopped: Path, unbroken: dict[str, tuple[Path, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    file = RUN / "checkpoints" / "step-00000006" / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    capsys.readouterr()
    assert main(RESUME) == 0
    shown = capsys.readouterr().out
    assert "the checkpoint step-00000006 is not used, as it is damaged: state.safetensors has changed since" in shown
    assert "goes on after step 4" in shown
    assert outcome_of(stopped) == unbroken["float32"][1]
    assert (outcome().resumed[0].step, outcome().resumed[0].unused) == (4, ("step-00000006",))
    assert (RUN / "checkpoints" / "unused-step-00000006").is_dir()


def test_with_no_whole_checkpoint_nothing_is_begun(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in steps_kept():
        (RUN / "checkpoints" / f"step-{step:08d}" / "weights.safetensors").unlink()
    before = contents()
    capsys.readouterr()
    assert main(RESUME) == 1
    assert "no checkpoint in" in capsys.readouterr().err
    assert contents() == before


SETTINGS = [
    ("training.learning_rate", "0.001", "0.002"),
    ("training.micro_batch_tokens", "128", "256"),
    ("run.seed", "0", "1"),
    ("loss.beta", "0.1", "0.2"),
    ("data.max_length", "512", "400"),
    ("model.precision", "float32", "bfloat16"),
    ("comparison.samples", "1", "2"),
]


@pytest.mark.parametrize(("option", "was", "now"), SETTINGS)
def test_other_settings_are_refused_with_the_difference(
    stopped: Path, option: str, was: str, now: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents()
    capsys.readouterr()
    assert main([*RESUME, f"--{option}", now]) == 1
    shown = capsys.readouterr().err
    assert f"{option}: {was} then, {now} now" in shown
    assert f"--allow {option}" in shown
    assert contents() == before


def test_other_settings_may_be_allowed_by_name(stopped: Path) -> None:
    flags = [word for option, _, now in SETTINGS[1:5] for word in (f"--{option}", now)]
    allowed = [option.replace("_", "-") for option, _, _ in SETTINGS[1:5]]
    assert main([*RESUME, *flags, "--allow", *allowed, "data", "reference"]) == 0
    for option, was, now in SETTINGS[1:5]:
        assert f"{option}: {was} then, {now} now" in outcome().resumed[0].differences
        section, _, name = option.partition(".")
        assert str(read_run(RUN).settings[section][name]) == now
    assert outcome().resumed[0].step == 6


def test_settings_without_effect_may_be_others(stopped: Path, unbroken: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    assert main([*RESUME, "--checkpoint.every-steps", "9", "--checkpoint.keep", "1", "--checkpoint.best", "none"]) == 0
    assert steps_kept() == [STEPS]
    assert outcome_of(stopped) == unbroken["float32"][1]


def test_a_changed_data_file_is_noticed(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (stopped / "pairs.jsonl").read_text().splitlines()
    (stopped / "pairs.jsonl").write_text("\n".join([*rows[:-1], rows[-1].replace(" yes", " Yes")]))
    before = contents()
    capsys.readouterr()
    assert main(RESUME) == 1
    shown = capsys.readouterr().err
    assert "examples: " in shown and " then, " in shown and "--allow data" in shown
    assert contents() == before
    assert main([*RESUME, "--allow", "data", "reference"]) == 0
    assert any("examples" in difference for difference in outcome().resumed[0].differences)


def test_a_changed_model_is_noticed_before_the_reference_pass(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(stopped / "model", seed=5)
    calls: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr("tiltlm.pipeline.referencing.fill_cache", lambda *arguments: calls.append(arguments))
        capsys.readouterr()
        assert main(RESUME) == 1
    shown = capsys.readouterr().err
    assert "model: 24,288 weights" in shown and "--allow model" in shown
    assert calls == []
    assert main([*RESUME, "--allow", "model", "reference"]) == 0


def test_after_a_loss_that_is_not_finite_another_rate_may_be_tried(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start("--training.learning-rate", "1e30", "--training.gradient-clip", "0") == 1
    assert "is not finite" in capsys.readouterr().err
    last = steps_kept()[-1]
    assert main(RESUME) == 1
    assert f"step {last + 1}: the" in capsys.readouterr().err, "the same, at the same step"
    words = ["--training.learning-rate", "1e-5", "--training.gradient-clip", "1"]
    assert main([*RESUME, *words, "--allow", "training.learning_rate"]) == 1
    assert "training.gradient_clip: 0.0 then, 1.0 now" in capsys.readouterr().err


def test_a_run_that_came_to_its_end_has_nothing_left_to_do(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start() == 0
    (RUN / "report.html").unlink()
    before = {path: content for path, content in contents().items() if path.endswith("safetensors")}
    capsys.readouterr()
    assert main(RESUME) == 0
    assert "came to its end: nothing is left to do" in capsys.readouterr().out
    assert {path: content for path, content in contents().items() if path.endswith("safetensors")} == before
    assert (RUN / "report.html").is_file()
    assert outcome().resumed == ()


def test_a_run_that_came_to_its_end_may_be_made_longer(here: Path) -> None:
    assert start("--training.schedule", "constant", "--training.epochs", "2") == 0
    short = (RUN / "metrics.jsonl").read_text().splitlines()
    assert main([*RESUME, "--training.epochs", "3", "--allow", "training.epochs"]) == 0
    longer = (RUN / "metrics.jsonl").read_text().splitlines()
    assert longer[: len(short)] == short
    assert json.loads(longer[-1])["step"] == STEPS


def test_one_process_at_a_time(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents()
    with locked(RUN):
        capsys.readouterr()
        assert main(RESUME) == 1
        assert f"another process is at work on the run in {RUN}" in capsys.readouterr().err
        assert start("--run.overwrite") == 1
        assert f"another process is at work on the run in {RUN}" in capsys.readouterr().err
        # Reading is nobody's trouble.
        assert main(["report", str(RUN)]) == 0
    assert {path: before[path] for path in before if "report" not in path} == {
        path: content for path, content in contents().items() if "report" not in path
    }
    assert main(RESUME) == 0


def test_a_run_holds_its_lock_while_it_works(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []
    real = run_checks

    def checks(*arguments: Any) -> Any:
        try:
            with locked(RUN):
                held.append(False)
        except tiltlm.TiltlmError:
            held.append(True)
        return real(*arguments)

    monkeypatch.setattr("tiltlm.pipeline.optimize.run_checks", checks)
    assert start("--training.epochs", "1") == 0
    with locked(RUN):
        held.append(False)
    assert held == [True, False]


@pytest.mark.parametrize("made", ["nothing", "empty", "marker", "model"])
def test_what_is_no_run_is_said(here: Path, made: str, capsys: pytest.CaptureFixture[str]) -> None:
    if made != "nothing":
        RUN.mkdir(parents=True)
    if made == "marker":
        (RUN / MARKER).touch()
    if made == "model":
        write_model(RUN)
    capsys.readouterr()
    assert main(RESUME) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("tiltlm: there is no") and shown.count("\n") == 1 and str(RUN) in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run.name", "x"], "--run.name has no effect on a run that goes on"),
        (["--run.overwrite"], "--run.overwrite has no effect on a run that goes on"),
        (["--allow", "dta"], "Did you mean `data`?"),
        (["--allow", "training.learning_rat"], "Did you mean `training.learning_rate`?"),
        (["--allow", "everything"], "could be allowed"),
    ],
)
def test_words_that_do_not_fit_are_said(
    stopped: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main([*RESUME, *words]) == 2
    assert said in capsys.readouterr().err


def test_allowing_without_resuming_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *TRAIN, "--allow", "data"]) == 2
    assert "--allow has no effect without --resume" in capsys.readouterr().err


def test_a_run_may_have_moved(stopped: Path, unbroken: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    moved = stopped / "elsewhere" / "mine"
    moved.parent.mkdir()
    RUN.rename(moved)
    assert main(["train", "--resume", "elsewhere/mine"]) == 0
    moved.rename(RUN)
    assert outcome_of(stopped) == unbroken["float32"][1]


def test_another_machine_is_said(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = RUN / "environment.json"
    table = json.loads(path.read_text())
    table["versions"]["torch"] = "1.0.0"
    path.write_text(json.dumps(table))
    capsys.readouterr()
    assert main(RESUME) == 0
    assert "results may differ by rounding: torch 1.0.0 then, " in capsys.readouterr().out
    assert outcome().resumed[0].differences


def test_a_checkpoint_becomes_a_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That of the last step is the trained model itself, in whichever arithmetic it was trained."""
    assert start(precision="bfloat16") == 0
    capsys.readouterr()
    assert main(["export", str(RUN), "models/last", "--checkpoint", "last"]) == 0
    assert f"The checkpoint of step {STEPS}" in capsys.readouterr().out
    trained, exported = RUN / "model", Path("models/last")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (exported / name).read_bytes() == (trained / name).read_bytes()
    best_one = min(read_run(RUN).metrics.evaluations, key=lambda row: row.loss)
    evaluated = [step for step in steps_kept() if step % 6 == 0]
    assert main(["export", str(RUN), "models/best"]) == 0
    assert f"The checkpoint of step {best_one.step if best_one.step in evaluated else evaluated[0]}" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        ([], "name the run and the folder", 2),
        ([str(RUN)], "name the run and the folder", 2),
        ([str(RUN), "new", "--checkpoint", "5"], "has no checkpoint `5`: it is best, last or a step: 4, 6", 1),
        ([str(RUN), "model", "--checkpoint", "4"], "model is there already", 1),
        (["nowhere", "new"], "there is no run in nowhere", 1),
    ],
)
def test_what_cannot_be_exported_is_said(
    stopped: Path, words: list[str], said: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["export", *words]) == code
    assert said in capsys.readouterr().err
    assert not Path("new").exists()


def test_of_another_model_nothing_is_exported(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(stopped / "model", seed=5)
    assert main(["export", str(RUN), "new", "--checkpoint", "4"]) == 1
    assert "is not the one that the run was trained from" in capsys.readouterr().err
    assert not Path("new").exists()


def test_a_run_without_checkpoints_has_none_to_export(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start("--checkpoint.every-steps", "0", "--training.epochs", "1") == 0
    capsys.readouterr()
    assert main(["export", str(RUN), "new"]) == 1
    assert f"has no checkpoint; the trained model is in {RUN}/model" in capsys.readouterr().err
    # Nor does it begin anew what came to its end.
    before = contents()
    assert main([*RESUME, "--training.epochs", "2", "--allow", "training.epochs"]) == 1
    assert "has no checkpoint of that step to go on from: start another run" in capsys.readouterr().err
    assert contents() == before


@pytest.mark.parametrize("precision", PRECISIONS)
def test_going_on_in_the_other_arithmetic_keeps_what_was_learned(
    here: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are dithered in bfloat16, and in float32 they are not."""
    with monkeypatch.context() as patch:
        sends(signal.SIGTERM, 12, patch)
        assert start(precision=precision) == 130
    before = load_file(RUN / "model" / "model.safetensors")
    (other,) = set(PRECISIONS) - {precision}
    flags = ["--model.precision", other, "--training.learning-rate", "1e-12"]
    assert main([*RESUME, *flags, "--allow", "model.precision", "training.learning_rate", "reference"]) == 0
    after, base = load_file(RUN / "model" / "model.safetensors"), load_file(Path("model/model.safetensors"))
    moved = sum(float((after[name] - before[name]).square().sum()) for name in before) ** 0.5
    learned = sum(float((before[name] - base[name]).square().sum()) for name in before) ** 0.5
    assert moved < 1e-3 * learned


def test_what_is_of_the_earlier_model_goes_when_training_goes_on(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (RUN / "comparison.md").write_text("of the model of step 6")
    assert (RUN / "evaluation.json").is_file()
    with monkeypatch.context() as patch:
        patch.setattr("tiltlm.pipeline.optimize.MetricsLog", failing(MetricsLog))
        with pytest.raises(RuntimeError, match="broken off"):
            main(RESUME)
    assert not (RUN / "comparison.md").exists() and not (RUN / "evaluation.json").exists()
    assert (RUN / "model").is_dir()


def test_killed_between_two_moves_the_model_is_still_there(
    stopped: Path, unbroken: dict[str, tuple[Path, dict[str, Any]]]
) -> None:
    (RUN / "model").rename(RUN / ".model.earlier")
    (RUN / ".model.partial").mkdir()
    assert main([*RESUME, "--run.seed", "5"]) == 1
    assert (RUN / ".model.earlier").is_dir(), "a refusal changes nothing"
    assert main(RESUME) == 0
    assert outcome_of(stopped) == unbroken["float32"][1]
    assert not list(RUN.glob(".model*"))


def test_settings_are_those_of_the_checkpoint_not_of_a_file_that_was_edited(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = RUN / "config.json"
    path.write_text(path.read_text().replace('"learning_rate": 0.001', '"learning_rate": 0.05'))
    assert main(RESUME) == 1
    assert "training.learning_rate: 0.001 then, 0.05 now" in capsys.readouterr().err


def test_what_was_allowed_and_then_refused_for_another_reason_is_not_kept(
    stopped: Path, unbroken: dict[str, tuple[Path, dict[str, Any]]]
) -> None:
    kept = (stopped / "pairs.jsonl").read_text()
    (stopped / "pairs.jsonl").write_text(kept.replace(" yes", " Yes"))
    before = contents()
    assert main([*RESUME, "--training.learning-rate", "5e-3", "--allow", "training.learning_rate"]) == 1
    assert contents() == before
    (stopped / "pairs.jsonl").write_text(kept)
    assert main(RESUME) == 0
    assert outcome_of(stopped) == unbroken["float32"][1]


def test_fewer_steps_than_were_taken_are_refused(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--training.epochs", "1", "--training.batch-pairs", "60", "--training.warmup-steps", "0"]
    names = ["training.epochs", "training.batch_pairs", "training.warmup_steps"]
    assert main([*RESUME, *flags, "--allow", *names]) == 1
    assert "has taken 6 steps, and is to have 2" in capsys.readouterr().err


def test_a_checkpoint_is_told_from_its_run(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(RUN / "checkpoints" / "step-00000006")]) == 1
    assert f"lies in a run: give the run, {RUN}." in capsys.readouterr().err


def test_from_python_with_rows_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    write_model(Path("model"))
    rows = [{"prompt": f"Is {n} a number?", "chosen": " yes", "rejected": " no"} for n in range(20)]
    settings = {
        "model": {"path": "model", "precision": "float32"},
        "training": {"batch_pairs": 4, "learning_rate": 1e-3},
        "comparison": {"prompts": 1, "samples": 1, "max_new_tokens": 4},
    }

    def named(name: str) -> dict[str, Any]:
        return {**settings, "run": {"name": name}}

    whole = tiltlm.train(named("whole"), train=rows)
    requests: list[StopRequest] = []
    real = StopRequest.__enter__

    def enter(self: StopRequest) -> StopRequest:
        requests.append(self)
        return real(self)

    def stop_it(row: object) -> None:
        requests[-1].requested = isinstance(row, tiltlm.TrainRow)

    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__enter__", enter)
        half = tiltlm.train(named("half"), train=rows, observers=[stop_it])
    assert not half.summary.completed and half.summary.steps == 1
    with pytest.raises(tiltlm.TiltlmError, match="no effect without `resume`"):
        tiltlm.train(named("other"), train=rows, allow=["data"])
    with pytest.raises(tiltlm.TiltlmError, match=r"examples: .*--allow data"):
        tiltlm.train(resume=half.folder, train=rows[:-2])
    again = tiltlm.train(resume=half.folder, train=rows)
    assert again.folder == half.folder and again.summary.completed
    names = ("model.safetensors", "config.json")
    for name in names:
        assert (again.model / name).read_bytes() == (whole.model / name).read_bytes()


# The same command every time


def test_the_same_command_begins_a_run_goes_on_with_it_and_leaves_it_when_it_is_done(
    here: Path,
    unbroken: dict[str, tuple[Path, dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        sends(signal.SIGTERM, 7, patch)
        assert start("--auto-resume") == 130
    assert outcome().status == "interrupted"
    assert start("--auto-resume") == 0
    assert "goes on after step 7" in capsys.readouterr().out
    assert outcome_of(here) == unbroken["float32"][1]
    before = (RUN / "model" / "model.safetensors").stat().st_mtime_ns
    assert start("--auto-resume") == 0
    assert "nothing is left to do" in capsys.readouterr().out
    assert (RUN / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_the_same_command_with_other_settings_does_not_go_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start("--auto-resume") == 0
    assert start("--auto-resume", "--loss.beta", "0.7") == 1
    assert "loss.beta: 0.1 then, 0.7 now" in capsys.readouterr().err


def test_the_same_command_begins_anew_what_ended_before_its_work(here: Path) -> None:
    (RUN).mkdir(parents=True)
    (RUN / MARKER).write_text("A run of tiltlm.\n")
    assert start("--auto-resume") == 0
    assert outcome().status == "completed"


@pytest.mark.parametrize("others", [["--resume", str(RUN)], ["--run.overwrite"]])
def test_going_on_by_name_and_another_way_at_once_is_refused(
    here: Path, others: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert start() == 0
    words = (
        ["train", *others, "--auto-resume"] if others[0] == "--resume" else ["train", *TRAIN, *others, "--auto-resume"]
    )
    assert main(words) == 2
    assert "Leave one of them out" in capsys.readouterr().err
