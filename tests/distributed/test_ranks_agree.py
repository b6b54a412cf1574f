"""Several ranks come to what one process comes to: gradients, rows, weights, and whatever they go on from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rank_work
from kinds_of_objectives import ONE_OF_EACH
from rank_work import Trained, Training
from several_ranks import on_ranks
from tiny_models import SHAREABLE, UNSHAREABLE

from tiltlm.distributed.ranks import Ranks

FAMILIES = [*SHAREABLE, *UNSHAREABLE]
EXAMPLES = 7
"""Divided by no number of ranks."""


def all_gradients(ranks: Ranks, cases: list[tuple[str, str]], shard: int) -> list[dict[str, np.ndarray]]:
    return [rank_work.gradients(ranks, *case, EXAMPLES, shard) for case in cases]


def assert_same_gradients(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], what: str) -> None:
    assert found.keys() == wanted.keys(), what
    norm = math.sqrt(sum(float(np.square(own).sum()) for own in wanted.values()))
    assert norm > 0
    for name, own in wanted.items():
        assert np.abs(found[name] - own).max() <= 1e-10 * norm, f"{what}: {name}"


@pytest.mark.parametrize(("ranks", "shard"), [(2, 0), (4, 0), (4, 2), (2, 1)], ids=["2", "4", "4 by 2", "2 replicas"])
def test_gradients_are_those_of_one_process(ranks: int, shard: int) -> None:
    """In float64, of the same micro-batches; on two ranks for every family of models and every kind of objective."""
    every = ranks == 2 and shard == 0
    cases = [(name, "sigmoid") for name in (FAMILIES if every else ["llama", "gpt2"])]
    cases += [(name, "sigmoid") for name in (rank_work.EXPERTS if every else [])]
    cases += [("llama", name) for name in (ONE_OF_EACH if every else ["bco", "tr_kto", "tdpo2"])]
    found = on_ranks(ranks, all_gradients, cases, shard)
    for number, case in enumerate(cases):
        wanted = rank_work.gradients_alone(*case, EXAMPLES, ranks)
        for own in found:
            assert_same_gradients(own[number], wanted, f"{case}")


def all_trained(ranks: Ranks, cases: list[Training]) -> list[Trained]:
    return [rank_work.trained(ranks, case) for case in cases]


def assert_same_training(found: Trained, wanted: Trained, tolerance: float = 2e-4) -> None:
    """But for the tokens laid out, as trees in different rows do not share what they have in common."""
    assert [row["kind"] for row in found.rows] == [row["kind"] for row in wanted.rows]
    for row, other in zip(found.rows, wanted.rows, strict=True):
        for name, value in other.items():
            if name in ("seconds", "tokens") or value is None or isinstance(value, str):
                continue
            assert np.allclose(row[name], value, rtol=tolerance, atol=tolerance), f"step {row['step']}: {name}"
    for name, own in wanted.weights.items():
        assert np.allclose(found.weights[name], own, rtol=0, atol=tolerance), name


CASES = [
    Training(),
    Training("gpt2", optimizer="rmsprop"),
    Training(adapter=True),
    Training(batch=1, examples=3),
    Training(clip=0.05),
    Training(offload=True),
    *(Training(objective=name) for name in ("aot_unpaired", "bco", "beta_dpo", "plackett_luce", "tr_kto", "tdpo2")),
]


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_training_is_that_of_one_process(ranks: int) -> None:
    """Rows and final weights in float32: also of adapters, coupled objectives, steps of fewer examples than ranks."""
    cases = CASES if ranks == 2 else CASES[:6]
    found = on_ranks(ranks, all_trained, cases)
    for number, case in enumerate(cases):
        wanted = rank_work.trained_alone(case)
        for own in found:
            # RMSprop's first steps are as long whatever the gradient is, and so is what rounding makes of zero.
            assert_same_training(own[number], wanted, 2e-3 if case.optimizer == "rmsprop" else 2e-4)


def test_every_rank_has_the_same_rows() -> None:
    first, second = on_ranks(2, all_trained, [Training(), Training(objective="kto")])
    for one, other in zip(first, second, strict=True):
        assert [without_time(row) for row in one.rows] == [without_time(row) for row in other.rows]


def without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "seconds"}


def go_on(ranks: Ranks, case: Training, state: Path, until: int | None) -> Trained:
    return rank_work.trained(ranks, case, state, until)


GOING_ON = [
    *((before, after, Training(objective="bco", steps=6)) for before, after in ((2, 1), (1, 2), (2, 4))),
    (4, 2, Training(objective="tr_kto", steps=6)),
    (2, 4, Training("gpt2", optimizer="rmsprop", steps=6)),
    (4, 1, Training(adapter=True, steps=6)),
]


@pytest.mark.parametrize(
    ("before", "after", "case"), GOING_ON, ids=[f"{one[0]}-{one[1]} {one[2].objective}" for one in GOING_ON]
)
def test_a_training_goes_on_on_another_number_of_ranks(tmp_path: Path, before: int, after: int, case: Training) -> None:
    """Stopped by one rank after three steps; the state is read by ranks that held none of it: also statistics, a
    reference that moves, other optimizers, and shares of which some ranks have nothing."""
    wanted = rank_work.trained_alone(case)
    first = on_ranks(before, go_on, case, tmp_path / "state", 3)[0]
    assert [row["step"] for row in first.rows if row["kind"] == "TrainRow"] == [1, 2, 3]
    second = on_ranks(after, go_on, case, tmp_path / "state", None)[0]
    tolerance = 2e-3 if case.optimizer == "rmsprop" else 2e-4
    assert_same_training(Trained([*first.rows, *second.rows], second.weights), wanted, tolerance)


def test_replicas_of_groups_go_on_too(tmp_path: Path) -> None:
    case = Training(steps=6, shard=2)
    wanted = rank_work.trained_alone(case)
    first = on_ranks(4, go_on, case, tmp_path / "state", 3)[0]
    second = on_ranks(2, go_on, case, tmp_path / "state", None)[0]
    assert_same_training(Trained([*first.rows, *second.rows], second.weights), wanted)


def all_failed(ranks: Ranks, cases: list[Training], spoilt: int) -> list[str]:
    return [rank_work.failed(ranks, case, spoilt) for case in cases]


@pytest.mark.parametrize("spoilt", [0, 4])
def test_every_rank_names_the_examples_of_a_loss_that_is_not_finite(spoilt: int) -> None:
    """Whoever computed them; of a batch that is coupled all of them."""
    cases = [Training(batch=5, examples=5), Training(batch=5, examples=5, objective="bco")]
    for said in on_ranks(2, all_failed, cases, spoilt):
        assert f"at these examples: example {spoilt}." in said[0]
        assert f"example {spoilt}" in said[1]
        assert all("step 1: the loss is not finite" in one for one in said)
