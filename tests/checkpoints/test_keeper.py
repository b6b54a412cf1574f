"""When checkpoints are taken, which are kept, and what training notices of it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from tiny_runs import Kept, pairs, referenced, tiny_model, trainer

from tiltlm.checkpoints.checkpoint_folder import (
    Circumstances,
    checkpoints_in,
    read_record,
    verified,
    write_checkpoint,
)
from tiltlm.checkpoints.keeper import Checkpoints, best, last_whole
from tiltlm.checkpoints.state_files import read_state
from tiltlm.config import CheckpointConfig, TrainingConfig
from tiltlm.errors import RunError
from tiltlm.model.scorer import Scorer
from tiltlm.training.loop import Trainer
from tiltlm.training.observers import MetricsLog, Observers
from tiltlm.training.state import TrainerState
from tiltlm.training.stop import StopRequest

TRAINING = TrainingConfig(epochs=4, batch_pairs=4, learning_rate=1e-3, eval_every=3)
"""Of ten examples: twelve steps."""


def made(folder: Path) -> Trainer:
    scorer = Scorer(tiny_model())
    return trainer(scorer, referenced(scorer, pairs(10), folder), None, TRAINING)


def run(folder: Path, config: CheckpointConfig, said: list[str] | None = None) -> tuple[Trainer, Checkpoints]:
    """A training to its end with checkpoints in the folder."""
    maker = made(folder)
    checkpoints = Checkpoints(
        folder / "checkpoints", config, folder / "metrics.jsonl", {}, {"model": "x"}, (said or []).append
    )
    with StopRequest() as stop, checkpoints, MetricsLog(folder / "metrics.jsonl") as log:
        told = Observers((log, checkpoints.observe))
        completed = maker.train(stop, told, after_step=checkpoints.after_step)
        checkpoints.ended(maker, completed)
    return maker, checkpoints


def steps(folder: Path) -> list[int]:
    return [verified(path).step for path in checkpoints_in(folder / "checkpoints")]


def flat(model: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([model[name].reshape(-1) for name in sorted(model)])


def by_steps(every: int, **options: object) -> CheckpointConfig:
    return CheckpointConfig(every_steps=every, every_minutes=0, **{"best": "none", **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (by_steps(5, keep=9), [5, 10, 12]),
        (by_steps(5, keep=2), [10, 12]),
        (by_steps(5, keep=1), [12]),
        (by_steps(6, keep=9), [6, 12]),
        (by_steps(12), [12]),
        (by_steps(13), []),
        (CheckpointConfig(every_minutes=1000), []),
        (CheckpointConfig(every_minutes=1e-9, keep=3, best="none"), [10, 11, 12]),
        (CheckpointConfig(every_minutes=0), []),
    ],
)
def test_which_are_there_at_the_end(tmp_path: Path, config: CheckpointConfig, wanted: list[int]) -> None:
    run(tmp_path, config)
    assert steps(tmp_path) == wanted


def test_a_short_run_that_is_stopped_leaves_one_all_the_same(tmp_path: Path) -> None:
    maker = made(tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig(), tmp_path / "metrics.jsonl", {}, {}, print)
    with StopRequest() as stop, checkpoints, MetricsLog(tmp_path / "metrics.jsonl") as log:
        kept = Kept(log)

        def after(trainer: Trainer) -> None:
            stop.requested = trainer.progress.step == 2
            checkpoints.after_step(trainer)

        assert not maker.train(stop, kept, after_step=after)
        checkpoints.ended(maker, False)
        checkpoints.ended(maker, False)
    assert steps(tmp_path) == [2]


def test_minutes_are_counted_from_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that nobody sets; here one that moves a minute a step."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    maker = made(tmp_path)
    config = CheckpointConfig(every_steps=7, every_minutes=3, keep=99, best="none")
    checkpoints = Checkpoints(tmp_path / "checkpoints", config, tmp_path / "metrics.jsonl", {}, {}, print)

    def after(trainer: Trainer) -> None:
        clock[0] += 60
        checkpoints.after_step(trainer)

    with StopRequest() as stop, checkpoints, MetricsLog(tmp_path / "metrics.jsonl") as log:
        maker.train(stop, log, after_step=after)
    assert steps(tmp_path) == [3, 6, 7, 10]


def test_the_best_stays_beside_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([0.9, 0.5, 0.6, 0.7, 0.8])
    real = Trainer.evaluate

    def evaluate(self: Trainer) -> object:
        import dataclasses

        return dataclasses.replace(real(self), loss=next(losses), accuracy=0.5)

    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    monkeypatch.setattr(Trainer, "_starting_point", evaluate)
    run(tmp_path, by_steps(1, keep=2, best="loss"))
    assert steps(tmp_path) == [3, 11, 12], "evaluated after 3, 6, 9 and 12"
    paths = checkpoints_in(tmp_path / "checkpoints")
    assert best(paths, "loss") == paths[0]
    assert best(paths, "accuracy") == paths[0], "the first of equal ones"
    assert best(paths, "none") is None
    assert read_record(paths[1]).held_out is None, "its weights were not evaluated"
    assert best(paths[1:2], "loss") is None


def test_what_is_written_is_the_state_of_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though training goes on while it is written, and changes the weights in place."""
    wanted: dict[int, torch.Tensor] = {}
    real = write_checkpoint

    def slow(folder: Path, state: TrainerState, circumstances: Circumstances) -> Path:
        time.sleep(0.05)
        return real(folder, state, circumstances)

    monkeypatch.setattr("tiltlm.checkpoints.keeper.write_checkpoint", slow)
    taken = TrainerState.copy

    def copy(self: TrainerState) -> TrainerState:
        wanted[self.progress.step] = flat(self.model)
        return taken(self)

    monkeypatch.setattr(TrainerState, "copy", copy)
    run(tmp_path, by_steps(4, keep=9))
    for path in checkpoints_in(tmp_path / "checkpoints"):
        state = read_state(path)
        assert torch.equal(flat(state.model), wanted[state.progress.step])
        lines = (tmp_path / "metrics.jsonl").read_bytes()[: verified(path).metrics.bytes].splitlines()
        trained = [line for line in lines if b'"kind": "train"' in line]
        assert len(trained) == state.progress.step


def test_training_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are taken while a checkpoint is being written; a second one waits for the first."""
    may_write, begun = threading.Event(), threading.Event()
    real = write_checkpoint

    def waits(folder: Path, state: TrainerState, circumstances: Circumstances) -> Path:
        begun.set()
        assert may_write.wait(60)
        return real(folder, state, circumstances)

    monkeypatch.setattr("tiltlm.checkpoints.keeper.write_checkpoint", waits)
    maker = made(tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints", by_steps(4), tmp_path / "metrics.jsonl", {}, {}, print)

    def after(trainer: Trainer) -> None:
        if trainer.progress.step == 7:
            assert begun.is_set()
            assert checkpoints_in(tmp_path / "checkpoints") == []
            may_write.set()
        checkpoints.after_step(trainer)

    with StopRequest() as stop, checkpoints, MetricsLog(tmp_path / "metrics.jsonl") as log:
        maker.train(stop, log, after_step=after)
    assert steps(tmp_path) == [8, 12]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError("no room")])
def test_one_that_fails_is_said_and_the_next_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real = write_checkpoint

    def fails(folder: Path, state: TrainerState, circumstances: Circumstances) -> Path:
        if state.progress.step in (4, 12):
            raise error
        return real(folder, state, circumstances)

    monkeypatch.setattr("tiltlm.checkpoints.keeper.write_checkpoint", fails)
    said: list[str] = [""]
    maker, checkpoints = run(tmp_path, by_steps(4), said)
    assert maker.progress.step == 12
    assert steps(tmp_path) == [8]
    assert len(said) == 4 and all("a checkpoint could not be written" in line for line in said[1:])
    assert "Training goes on" in said[1] and "Training goes on" not in said[3]
    assert "of steps 8" in (checkpoints.in_words() or "")


def test_one_that_failed_is_tried_again_when_training_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]

    def fails_once(folder: Path, state: TrainerState, circumstances: Circumstances) -> Path:
        calls[0] += 1
        if calls[0] == 1:
            raise OSError(28, "No space left on device")
        return write_checkpoint(folder, state, circumstances)

    monkeypatch.setattr("tiltlm.checkpoints.keeper.write_checkpoint", fails_once)
    _, checkpoints = run(tmp_path, by_steps(12))
    assert steps(tmp_path) == [12]
    assert checkpoints.was_due


def test_a_copy_that_finds_no_room_costs_that_checkpoint_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = TrainerState.copy

    def copy(self: TrainerState) -> TrainerState:
        if self.progress.step == 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")
        return real(self)

    monkeypatch.setattr(TrainerState, "copy", copy)
    said: list[str] = [""]
    maker, _ = run(tmp_path, by_steps(4, keep=9), said)
    assert (maker.progress.step, steps(tmp_path)) == (12, [8, 12])
    assert "can't allocate memory" in said[1]


def test_the_last_whole_one_is_found(tmp_path: Path) -> None:
    run(tmp_path, by_steps(4, keep=9))
    folder, metrics = tmp_path / "checkpoints", tmp_path / "metrics.jsonl"
    before = sorted(path.name for path in folder.iterdir())
    found = last_whole(folder, metrics)
    assert found is not None and (found.record.step, found.unused) == (12, {})
    (folder / "step-00000012" / "weights.safetensors").write_bytes(b"")
    found = last_whole(folder, metrics)
    assert found is not None and found.record.step == 8
    assert "damaged: weights.safetensors has 0 bytes, and was written with" in found.unused["step-00000012"]
    # Rows that a checkpoint knows and the file has lost, or others in their place: it cannot be gone on from.
    content = metrics.read_bytes()
    metrics.write_bytes(content[: verified(folder / "step-00000004").metrics.bytes])
    found = last_whole(folder, metrics)
    assert found is not None and found.record.step == 4
    assert "does not begin with the rows that it had then" in found.unused["step-00000008"]
    assert sorted(path.name for path in folder.iterdir()) == before, "looking changes nothing"
    for changed in (content.replace(b'"step": 1,', b'"step": 1 ,', 1), content[1:], b""):
        metrics.write_bytes(changed)
        with pytest.raises(RunError, match=r"no checkpoint in .* can be gone on from .*step-00000004.*tiltlm export"):
            last_whole(folder, metrics)
    metrics.unlink()
    with pytest.raises(RunError, match="does not begin with the rows"):
        last_whole(folder, metrics)
    assert last_whole(tmp_path / "nowhere", metrics) is None
