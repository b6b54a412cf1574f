"""A loss or gradient that is not finite: no weight changes, to the bit, and the message says what the figures show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from broken_runs import RUN, Ended, Place
from kinds_of_objectives import ONE_OF_EACH
from tiny_runs import bound, examples_for, sequence, tiny_model, trainer

from tiltlm.config import TrainingConfig
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample
from tiltlm.errors import NonFiniteError
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import score
from tiltlm.model.token_values import TokenValues
from tiltlm.runs.run_files import read_run
from tiltlm.training.loop import Trainer
from tiltlm.training.step_plans import Referenced
from tiltlm.training.stop import StopRequest

TRAINING = TrainingConfig(batch_pairs=4, max_steps=8, warmup_steps=4, learning_rate=1e-3, micro_batch_tokens=64)


def made(
    objective: str = "sigmoid",
    training: TrainingConfig = TRAINING,
    precision: torch.dtype = torch.float32,
    columns: TokenColumns | None = None,
) -> Trainer:
    """A trainer of 8 examples of the kind that the objective needs."""
    loss = bound(objective)
    columns = examples_for(loss.needs, 8) if columns is None else columns
    scorer = Scorer(tiny_model())
    reference = score(scorer, columns, precision, 64) if loss.needs.reference else None
    return trainer(scorer, Referenced(columns, reference), None, training, loss, precision)


@contextmanager
def broken(maker: Trainer, what: str, only_in: torch.dtype | None = None) -> Iterator[None]:
    """The loss or the gradient is not finite within; of the gradient, if told, in one arithmetic alone."""
    weight: torch.nn.Parameter = maker.scorer.model.model.norm.weight

    def spoilt(value: torch.Tensor | TokenValues) -> torch.Tensor | TokenValues:
        if only_in is torch.bfloat16 and not torch.is_autocast_enabled("cpu"):
            return value
        if isinstance(value, TokenValues):
            return replace(value, logps_S=value.logps_S * float("nan"))
        return value * float("nan")

    if what == "gradient":
        hook = weight.register_hook(lambda gradient: gradient * float("inf"))
    else:
        hook = maker.scorer.register_forward_hook(lambda module, given, logps_S: spoilt(logps_S))
    yield
    hook.remove()


def bits(maker: Trainer) -> list[bytes]:
    """Weights and the optimizer's moments and counts."""
    state = maker.state()
    moments = [value for of_weight in state.optimizer["state"].values() for value in of_weight.values()]
    tensors = (*state.model.values(), *map(torch.as_tensor, moments))
    return [tensor.detach().clone().reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors]


def message(maker: Trainer, step: int) -> str:
    with pytest.raises(NonFiniteError) as error:
        maker.step(maker.plan_of(step), StopRequest())
    return str(error.value)


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
@pytest.mark.parametrize("objective", ONE_OF_EACH)
def test_nothing_changes_under_any_objective(objective: str, optimizer: Any, precision: torch.dtype, what: str) -> None:
    maker = made(objective, replace(TRAINING, optimizer=optimizer), precision)
    maker.step(maker.plan_of(0), StopRequest())
    before = bits(maker)
    with broken(maker, what):
        said = message(maker, 1)
    assert bits(maker) == before
    assert maker.progress.step == 1
    assert all(parameter.grad is None for parameter in maker.scorer.parameters())
    assert said.startswith(f"step 2: the {what} is not finite, at these examples: ")
    assert "The weights were not changed by this step. What its figures show: " in said
    maker.step(maker.plan_of(1), StopRequest())
    assert maker.progress.step == 2


def test_the_warm_up_that_raises_the_learning_rate_is_told() -> None:
    maker = made()
    maker.step(maker.plan_of(0), StopRequest())
    with broken(maker, "loss"):
        said = message(maker, 1)
    assert "the learning rate is 0.0005, raised from 0.00025 by step 2 of 4 of the warm-up" in said
    assert "Likely remedies: lower training.learning_rate or raise training.warmup_steps" in said


def test_after_the_warm_up_the_learning_rate_is_no_cause() -> None:
    maker = made(training=replace(TRAINING, warmup_steps=0, schedule="constant"))
    maker.step(maker.plan_of(0), StopRequest())
    with broken(maker, "loss"):
        said = message(maker, 1)
    assert "the learning rate is 0.001;" in said and "warm-up" not in said


@pytest.mark.parametrize(("norms", "grow"), [((1.0, 1.1, 0.9, 8.0), True), ((1.0, 1.1, 0.9, 1.2), False)])
def test_gradient_norms_that_grow_are_told(norms: tuple[float, ...], grow: bool) -> None:
    maker = made(training=replace(TRAINING, gradient_clip=0.0))
    maker._norms.extend(norms)
    with broken(maker, "loss"):
        said = message(maker, 0)
    assert f"gradient norms of the steps before: {', '.join(f'{norm:.3g}' for norm in norms)}" in said
    assert (": they grow" in said) == grow
    assert ("clip gradients (training.gradient_clip is 0" in said) == grow


def test_norms_are_those_of_the_steps_that_were_taken() -> None:
    maker = made()
    rows = [maker.step(maker.plan_of(number), StopRequest()) for number in range(3)]
    with broken(maker, "loss"):
        assert ", ".join(f"{row.gradient_norm:.3g}" for row in rows) in message(maker, 3)


@pytest.mark.parametrize(("only_in", "mend"), [(torch.bfloat16, True), (None, False)])
def test_whether_the_arithmetic_is_at_fault_is_measured(only_in: torch.dtype | None, mend: bool) -> None:
    maker = made(precision=torch.bfloat16)
    with broken(maker, "loss", only_in):
        said = message(maker, 0)
    assert ("in float32 these are finite, in bfloat16 they are not" in said) == mend
    assert ("set model.precision to float32" in said) == mend
    assert ("in float32 4 of 4 are not finite either" in said) == (not mend)


def test_a_policy_far_from_the_reference_is_told() -> None:
    maker = made()
    assert maker.train_examples.reference is not None
    place = int(maker.train_examples.columns.scored_starts[0])
    far = maker.train_examples.reference.copy()
    far[place] -= 1000.0
    maker.train_examples = Referenced(maker.train_examples.columns, far)
    number = next(step for step in range(2) if 0 in maker.plan_of.order.step(step))
    with broken(maker, "gradient"):
        said = message(maker, number)
    assert "the policy is far from the reference: its log-ratio at example 0 is +1e+03 nats" in said
    assert "loss.beta" in said


@pytest.mark.parametrize(("length", "kind"), [(200, "long"), (1, "short")])
def test_an_unusual_completion_is_told(length: int, kind: str) -> None:
    usual = sequence([1, 8, *range(3, 13), 2], 2)
    odd = sequence([1, 8, *[9] * (length - 1), 2], 2)
    columns = TokenColumns.of([TokenizedExample.pair(f"pair {n}", odd if n == 2 else usual, usual) for n in range(4)])
    maker = made(columns=columns)
    with broken(maker, "loss"):
        said = message(maker, 0)
    assert f"pair 2 has an unusually {kind} completion, {length} token" in said and "the median is 11" in said
    assert "pair 1 has" not in said and "look at that example" in said


def test_the_example_whose_gradient_is_not_finite_is_found() -> None:
    """The loss is finite: each example of the step is asked for its own gradient."""
    maker = made()
    spoilt = int(maker.plan_of.order.step(0)[1])
    token = int(maker.train_examples.columns[spoilt].chosen.ids[0])
    columns = maker.train_examples.columns
    rare = 30
    ids = np.array(columns.ids)
    ids[ids == rare] = token
    ids[columns.bounds[columns.members[spoilt]]] = rare
    maker.train_examples = Referenced(replace_ids(columns, ids), maker.train_examples.reference)
    maker.plan_of.examples = maker.train_examples
    weight = maker.scorer.model.model.embed_tokens.weight

    def infinite(gradient: torch.Tensor) -> torch.Tensor:
        changed = gradient.clone()
        changed[rare] = torch.where(gradient[rare] != 0, torch.inf, gradient[rare])
        return changed

    hook = weight.register_hook(infinite)
    said = message(maker, 0)
    hook.remove()
    assert said.startswith(f"step 1: the gradient is not finite, at these examples: example {spoilt}. The weights")


def replace_ids(columns: TokenColumns, ids: np.ndarray) -> TokenColumns:
    kept = (
        "bounds",
        "first_scored",
        "tokens_cut",
        "ended",
        "labels",
        "scores",
        "members",
        "prompt_tokens_cut",
        "names",
    )
    return TokenColumns(ids=ids, **{name: getattr(columns, name) for name in kept})


def test_weights_that_are_not_finite_are_named() -> None:
    maker = made()
    with torch.no_grad():
        maker.scorer.model.model.norm.weight[0] = float("nan")
    said = message(maker, 0)
    assert "weights are not finite already (model.norm.weight)" in said and "start from sound weights" in said
    assert "no step was taken before it" in said


def test_of_a_whole_run_the_last_good_weights_are_kept(place: Place, undrawn: None) -> None:
    ended = place.train(
        "--training.learning-rate", "1e30", "--training.gradient-clip", "0", "--training.max-steps", "4"
    )
    said = ended.sentence()
    assert ended.code == 1 and said.startswith("step 2: the ") and "the learning rate is 1e+30" in said
    assert "gradient norms of the steps before: " in said
    assert len((RUN / "metrics.jsonl").read_text().splitlines()) == 2
    summary = read_run(RUN).summary
    assert summary is not None and (summary.status, summary.steps) == ("failed", 1)
    assert summary.message is not None and summary.message in said
    assert (RUN / "model" / "model.safetensors").is_file()
    assert place.report() == Ended(0, "")
    assert json.loads((RUN / "outcome.json").read_text())["stage"] == "training"
    assert Path("cache").is_dir()
