"""A trainer's state, written and read: what goes on from it is, to the bit, what would have been."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import Kept, at_work, bound, examples_for, moved, referenced, tiny_model, trainer

from tiltlm.checkpoints.state_files import read_state, write_state
from tiltlm.config import TrainingConfig
from tiltlm.model.scorer import Scorer
from tiltlm.objectives import OBJECTIVES
from tiltlm.runs.rows import EvalRow, TrainRow
from tiltlm.training.loop import Trainer
from tiltlm.training.observers import Row
from tiltlm.training.optimization import OPTIMIZERS
from tiltlm.training.state import Progress, TrainerState, random_states, restore_random_states
from tiltlm.training.step_plans import Referenced
from tiltlm.training.stop import StopRequest

TRAINING = TrainingConfig(
    epochs=3, batch_pairs=4, learning_rate=1e-3, eval_every=3, schedule="cosine", warmup_steps=2, gradient_clip=0.5
)
"""Of ten examples: three steps a pass, the last of them smaller."""

optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def made(
    tmp_path: Path, name: str = "sigmoid", optimizer: str = "adamw", model: str = "llama", elsewhere: float = 0.0
) -> Trainer:
    """elsewhere: how far its weights are from those that the reference's values are of."""
    objective = bound(name)
    columns = examples_for(objective.needs, 10)
    scorer = Scorer(tiny_model(model))
    examples = Referenced(columns, None)
    if objective.needs.reference:
        examples = referenced(scorer, columns, tmp_path)
    training = TrainingConfig(
        **{**vars(TRAINING), "optimizer": optimizer, "weight_decay": 0.1 * (optimizer == "adamw")}
    )
    objective = at_work(objective, scorer)
    return trainer(moved(scorer, elsewhere), examples, None, training, objective)


def steps(maker: Trainer, until: int | None = None) -> list[Row]:
    """Trains on, and stops after a step if one is given."""
    with StopRequest() as stop:

        def observe(row: Row) -> None:
            if row.step == until:
                stop.requested = True

        kept = Kept(observe)
        assert maker.train(stop, kept) == (until is None)
    return kept.rows


def through_a_file(state: TrainerState, path: Path) -> TrainerState:
    path.mkdir(exist_ok=True)
    write_state(state, path)
    return read_state(path)


def numbers(row: Row) -> dict[str, object]:
    return {name: value for name, value in dataclasses.asdict(row).items() if name != "seconds"}


def assert_the_same(found: list[Row], wanted: list[Row]) -> None:
    assert [numbers(row) for row in found] == [numbers(row) for row in wanted]


def assert_same_weights(one: Trainer, other: Trainer) -> None:
    for first, second in zip(one.scorer.parameters(), other.scorer.parameters(), strict=True):
        assert torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))


@optimizers
@pytest.mark.parametrize("step", [1, 3, 4, 5, 8])
def test_training_goes_on_as_if_it_had_never_stopped(tmp_path: Path, optimizer: str, step: int) -> None:
    """In the middle of a pass and between two, into a trainer whose weights were elsewhere."""
    never_stopped = made(tmp_path, optimizer=optimizer)
    wanted = steps(never_stopped)
    stopped = made(tmp_path, optimizer=optimizer)
    before = steps(stopped, until=step)
    state = through_a_file(stopped.state(), tmp_path / "state")
    fresh = made(tmp_path, optimizer=optimizer, elsewhere=0.5)
    fresh.restore(state)
    assert fresh.progress == stopped.progress
    assert_same_weights(fresh, stopped)
    after = steps(fresh)
    assert [row.step for row in before if isinstance(row, TrainRow)] == list(range(1, step + 1))
    assert_the_same([*before, *after], wanted)
    assert_same_weights(fresh, never_stopped)
    assert dataclasses.replace(fresh.progress, seconds=0) == dataclasses.replace(never_stopped.progress, seconds=0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_so_it_does_for_every_objective(tmp_path: Path, name: str) -> None:
    wanted, stopped = steps(made(tmp_path, name)), made(tmp_path, name)
    before = steps(stopped, until=4)
    fresh = made(tmp_path, name, elsewhere=0.5)
    fresh.restore(through_a_file(stopped.state(), tmp_path / "state"))
    assert_the_same([*before, *steps(fresh)], wanted)


@optimizers
def test_weights_that_are_one_stay_one(tmp_path: Path, optimizer: str) -> None:
    """An embedding that is the output layer too."""
    wanted = steps(made(tmp_path, optimizer=optimizer, model="gpt2"))
    stopped = made(tmp_path, optimizer=optimizer, model="gpt2")
    before = steps(stopped, until=4)
    fresh = made(tmp_path, optimizer=optimizer, model="gpt2", elsewhere=0.5)
    fresh.restore(through_a_file(stopped.state(), tmp_path / "state"))
    assert fresh.scorer.model.get_input_embeddings().weight is fresh.scorer.model.get_output_embeddings().weight
    assert_the_same([*before, *steps(fresh)], wanted)


def test_a_trainer_can_go_back(tmp_path: Path) -> None:
    maker = made(tmp_path)
    steps(maker, until=4)
    state = through_a_file(maker.state(), tmp_path / "state")
    first = steps(maker)
    maker.restore(state)
    assert maker.progress.step == 4
    assert_the_same(steps(maker), first)


def test_statistics_are_those_of_the_state_or_as_at_the_start(tmp_path: Path) -> None:
    """A state of before there were any has none, and training goes on from their start."""
    maker = made(tmp_path, "bco")
    start = dict(maker.objective.running)
    state = maker.state()
    steps(maker, until=3)
    assert maker.objective.running["desirables"] > 0 and maker.objective.running["delta"] != start["delta"]
    later = maker.state().copy()
    table = state.to_dict()
    del table["running"]
    maker.restore(TrainerState.from_dict(table))
    assert maker.objective.running == start
    maker.restore(later)
    assert maker.objective.running == later.running


def test_a_state_from_before_the_first_step(tmp_path: Path) -> None:
    """It has no moments yet, and the starting point is still to be told."""
    fresh = made(tmp_path, elsewhere=0.5)
    fresh.restore(through_a_file(made(tmp_path).state(), tmp_path / "state"))
    rows = steps(fresh)
    assert isinstance(rows[0], EvalRow) and rows[0].step == 0
    assert_the_same(rows, steps(made(tmp_path)))


def test_a_state_from_after_the_last_step_has_nothing_to_go_on_with(tmp_path: Path) -> None:
    maker = made(tmp_path)
    steps(maker)
    fresh = made(tmp_path)
    fresh.restore(through_a_file(maker.state(), tmp_path / "state"))
    assert steps(fresh) == []
    assert_same_weights(fresh, maker)


def test_the_learning_rate_is_that_of_the_step_not_of_the_file(tmp_path: Path) -> None:
    wanted = [row.learning_rate for row in steps(made(tmp_path)) if isinstance(row, TrainRow)]
    stopped = made(tmp_path)
    steps(stopped, until=5)
    fresh = made(tmp_path)
    fresh.restore(through_a_file(stopped.state(), tmp_path / "state"))
    assert [row.learning_rate for row in steps(fresh) if isinstance(row, TrainRow)] == wanted[5:]
    assert len(set(wanted)) > 5


def test_random_numbers_go_on_too(tmp_path: Path) -> None:
    torch.manual_seed(3)
    maker = made(tmp_path)
    torch.rand(7)
    state = through_a_file(maker.state(), tmp_path / "state")
    drawn = torch.rand(5).tolist()
    torch.manual_seed(99)
    maker.restore(state)
    assert torch.rand(5).tolist() == drawn


def test_random_states_round_trip() -> None:
    def drawn() -> tuple[list[float], list[float], float]:
        return torch.rand(3).tolist(), np.random.normal(size=3).tolist(), random.random()

    states = random_states()
    first = drawn()
    assert drawn() != first
    restore_random_states(states)
    assert drawn() == first


def test_a_copy_shares_nothing_with_what_training_changes(tmp_path: Path) -> None:
    maker = made(tmp_path)
    steps(maker, until=2)
    copied, kept = maker.state().copy(), through_a_file(maker.state(), tmp_path / "state")
    steps(maker, until=4)
    for name, weight in copied.model.items():
        assert torch.equal(weight, kept.model[name])
    for number, moments in copied.optimizer["state"].items():
        for name, moment in moments.items():
            assert torch.equal(moment, kept.optimizer["state"][number][name])
    assert copied.progress == kept.progress


def test_progress_of_a_state_does_not_move_on_with_the_trainer(tmp_path: Path) -> None:
    maker = made(tmp_path)
    steps(maker, until=2)
    state = maker.state()
    steps(maker, until=4)
    assert (state.progress.step, maker.progress.step) == (2, 4)
    maker.restore(state)
    steps(maker, until=3)
    assert state.progress.step == 2


def test_a_state_as_plain_containers() -> None:
    state = TrainerState(
        {"w": torch.ones(2)}, {"state": {}, "param_groups": []}, Progress(3, 12, 400, 1.5), {"cpu": torch.zeros(2)}
    )
    again = TrainerState.from_dict(state.to_dict())
    assert again.progress == state.progress
    assert set(state.to_dict()) == {field.name for field in dataclasses.fields(TrainerState)}
    assert np.array_equal(again.model["w"], state.model["w"])
