"""`tiltlm.loss`: losses of given log-probabilities, and the errors that name what is wrong with them."""

from __future__ import annotations

import doctest
import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_examples import Completion, losses, random_examples, scored

import tiltlm.api.loss_values
from tiltlm.api.loss_values import LABELS, arguments_of, loss
from tiltlm.errors import ConfigError
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import CHOSEN, MISMATCHED, Needs, Objective

every = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
PAIR: dict[str, Any] = {"chosen": [-10.0], "rejected": [-30.0]}
PAIR |= {"reference_chosen": [-12.0], "reference_rejected": [-25.0]}


def written_out(needs: Needs, examples: list[list[Completion]]) -> dict[str, Any]:
    """Arguments of `loss` for examples, in lists of Python's numbers."""
    given: dict[str, Any] = {}
    if needs.unit == "list":
        values = {
            "answers": [[one.policy.sum().item() for one in example] for example in examples],
            "reference_answers": [[one.reference.sum().item() for one in example] for example in examples],
            "answers_tokens": [[len(one.policy) for one in example] for example in examples],
            "scores": [[one.score for one in example] for example in examples],
            "answers_token_logps": [[one.policy.tolist() for one in example] for example in examples],
            "reference_answers_token_logps": [[one.reference.tolist() for one in example] for example in examples],
            "answers_credit": [
                [one.credit.tolist() for one in example if one.credit is not None] for example in examples
            ],
        }
        return {argument: values[argument] for argument in arguments_of(needs, "answers")}
    for side, label in LABELS.items():
        own = [one for example in examples for one in example if one.label == label]
        values = {
            side: [one.policy.sum().item() for one in own],
            f"reference_{side}": [one.reference.sum().item() for one in own],
            f"{side}_tokens": [len(one.policy) for one in own],
            f"{side}_scores": [one.score for one in own],
            f"{side}_token_logps": [one.policy.tolist() for one in own],
            f"reference_{side}_token_logps": [one.reference.tolist() for one in own],
            f"{side}_log_squares": [one.log_squares.tolist() for one in own if one.log_squares is not None],
            f"{side}_kl": [one.divergence.tolist() for one in own if one.divergence is not None],
        }
        if own:
            given |= {argument: values[argument] for argument in arguments_of(needs, side)}
    return given


def test_the_examples_give_what_they_say() -> None:
    assert doctest.testmod(tiltlm.api.loss_values, optionflags=doctest.ELLIPSIS).failed == 0


@every
@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=10)
def test_losses_are_those_of_the_objective(objective: Objective, seed: int) -> None:
    """In the order of the pairs, or of the desirable completions, then the undesirable ones."""
    examples = random_examples(objective.needs, 5, seed)
    if objective.needs.unit == "completion":
        examples.sort(key=lambda example: example[0].label != CHOSEN)
        if objective.needs.mismatched:
            others = [one for example in examples for one in example if one.label == MISMATCHED]
            examples = [[example[0], other] for example, other in zip(examples, others, strict=True)]
    expected = losses(objective, scored(examples, objective.needs))
    found = loss(objective.name, **written_out(objective.needs, examples))
    assert found == pytest.approx(expected, rel=1e-13, abs=1e-13)


@every
def test_every_argument_that_an_objective_may_need_is_a_parameter(objective: Objective) -> None:
    sides = [side for side in (*LABELS, "answers") if side != "mismatched" or objective.needs.mismatched]
    needed = {argument for side in sides for argument in arguments_of(objective.needs, side)}
    assert needed <= set(inspect.signature(loss).parameters)


@every
def test_each_missing_argument_is_named(objective: Objective) -> None:
    whole = written_out(objective.needs, random_examples(objective.needs, 5))
    for argument in whole:
        with pytest.raises(ConfigError, match=f"`{objective.name}` needs `{argument}`"):
            loss(objective.name, **{name: value for name, value in whole.items() if name != argument})


@every
def test_each_argument_that_is_not_needed_is_named(objective: Objective) -> None:
    whole = written_out(objective.needs, random_examples(objective.needs, 5))
    for argument in set(inspect.signature(loss).parameters) - set(whole) - {"name", "settings"}:
        with pytest.raises(ConfigError, match=f"`{objective.name}` does not read `{argument}`"):
            loss(objective.name, **{**whole, argument: [1.0] * 5})


@every
def test_each_argument_of_another_length_is_named(objective: Objective) -> None:
    whole = written_out(objective.needs, random_examples(objective.needs, 5))
    for argument, value in whole.items():
        with pytest.raises(ConfigError, match=rf"`{argument}`.*must hold equally many"):
            loss(objective.name, **{**whole, argument: value[:-1] or value * 2})


def test_tokens_of_one_completion_must_be_as_many_under_both_models() -> None:
    whole = written_out(Needs(tokens=True), random_examples(Needs(tokens=True), 2))
    whole["reference_rejected_token_logps"][1].append(-1.0)
    with pytest.raises(ConfigError, match=r"`reference_rejected_token_logps\[1\]` holds"):
        loss("ld_dpo", **whole)


def test_lists_give_a_list_and_tensors_a_tensor_with_its_gradient() -> None:
    of_lists = loss("sigmoid", **PAIR)
    assert of_lists == [pytest.approx(0.403186, abs=1e-6)]
    assert isinstance(of_lists, list)
    arrays: dict[str, Any] = {name: np.array(values) for name, values in PAIR.items()}
    assert loss("sigmoid", **arrays) == of_lists
    tensors: dict[str, Any] = {name: torch.tensor(values, dtype=torch.float64) for name, values in PAIR.items()}
    tensors["chosen"].requires_grad_()
    of_tensors = loss("sigmoid", **tensors)
    assert isinstance(of_tensors, torch.Tensor)
    assert of_tensors.tolist() == of_lists
    of_tensors.sum().backward()
    assert tensors["chosen"].grad is not None
    assert tensors["chosen"].grad.item() == pytest.approx(-0.1 / (1 + math.exp(0.7)))


def test_the_type_is_the_tensors_and_the_widest_of_several() -> None:
    single: dict[str, Any] = {name: torch.tensor(values) for name, values in PAIR.items()}
    for given_pair, dtype in (
        (single, torch.float32),
        (single | {"chosen": [-10.0]}, torch.float32),
        (single | {"chosen": torch.tensor([-10.0], dtype=torch.float64)}, torch.float64),
        ({name: torch.tensor([int(v) for v in values]) for name, values in PAIR.items()}, torch.float64),
    ):
        found = loss("sigmoid", **given_pair)
        assert isinstance(found, torch.Tensor)
        assert found.dtype == dtype


def test_single_answers_may_all_be_of_one_kind() -> None:
    others: dict[str, Any] = {"mismatched": [-5.0, -5.0], "reference_mismatched": [-6.0, -6.0]}
    good = loss("kto", chosen=[-1.0, -2.0], reference_chosen=[-2.0, -2.0], **others)
    bad = loss("kto", rejected=[-1.0, -2.0], reference_rejected=[-2.0, -2.0], **others)
    assert [one + other for one, other in zip(good, bad, strict=True)] == pytest.approx([1.0, 1.0])
    with pytest.raises(ConfigError, match="`kto` needs completions"):
        loss("kto", **others)


@pytest.mark.parametrize(
    ("name", "given_settings", "message"),
    [
        ("dpo", {}, "no objective `dpo`. Did you mean `sigmoid`"),
        ("sigmiod", {}, "Did you mean `sigmoid`"),
        ("xyzzy", {}, "There are: "),
        ("sigmoid", {"betta": 0.1}, "no setting `betta`. Did you mean `beta`"),
        ("ipo", {"label_smoothing": 0.1}, "no setting `label_smoothing`. It belongs to: sigmoid"),
        ("sigmoid", {"xyzzy": 0.1}, "no setting `xyzzy`. It has: beta, label_smoothing"),
        ("sigmoid", {"beta": 0.0}, "loss.beta must be above 0 and finite, not 0.0"),
        ("sigmoid", {"label_smoothing": 0.5}, "loss.label_smoothing must be at least 0 and below 0.5, not 0.5"),
    ],
)
def test_names_and_settings_that_do_not_exist_are_explained(
    name: str, given_settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        loss(name, **PAIR, **given_settings)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "wrong", [-10.0, [], "text", ["text"], [None], [[-10.0]], torch.tensor(-10.0), torch.tensor([[-10.0]])]
)
def test_what_is_no_list_of_numbers_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="`chosen` must"):
        loss("sigmoid", **{**PAIR, "chosen": wrong})


@pytest.mark.parametrize("wrong", [[0], [-1], [1.5], [math.nan]])
def test_tokens_are_counted_in_whole_numbers(wrong: list[float]) -> None:
    with pytest.raises(ConfigError, match="`chosen_tokens` must hold whole numbers"):
        loss("ipo", **PAIR, chosen_tokens=wrong, rejected_tokens=[3])


def test_settings_are_those_given() -> None:
    """0.9 * 0.403186 + 0.1 * 1.103186; and a whole number is a number."""
    assert loss("sigmoid", **PAIR, label_smoothing=0.1) == [pytest.approx(0.473186, abs=1e-6)]
    assert loss("sigmoid", **PAIR, beta=1) == [pytest.approx(math.log1p(math.exp(-7)))]
