"""`tdpo1` and `tdpo2` against their equations, worked by hand and by plain Python."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_examples import Completion, losses, random_examples, scored

from tiltlm.api.loss_values import loss
from tiltlm.objectives.dpo import SIGMOID
from tiltlm.objectives.interface import CHOSEN, REJECTED, Objective, Scored
from tiltlm.objectives.tdpo import TDPO1, TDPO2

Token = tuple[float, float, float]
"""Log-probability under policy and reference, divergence."""
tokens = st.lists(st.tuples(st.floats(-9, 0), st.floats(-9, 0), st.floats(0, 5)), min_size=1, max_size=6)
both = pytest.mark.parametrize("objective", [TDPO1, TDPO2], ids=lambda objective: objective.name)


def completion(label: int, values: list[Token]) -> Completion:
    policy, reference, divergence = torch.tensor(values, dtype=torch.float64).unbind(1)
    return Completion(label, policy, reference, divergence=divergence)


def pair(chosen: list[Token], rejected: list[Token]) -> Scored:
    return scored([[completion(CHOSEN, chosen), completion(REJECTED, rejected)]], TDPO1.needs)


HAND = pair([(-1, -2, 0.5), (-2, -3, 0.3)], [(-3, -2, 1.2)])
"""w = 2, l = -1, h = 3; k_w = 0.8, k_l = 1.2."""


def test_tdpo1_worked_by_hand() -> None:
    """0.5 * (3 - (1.2 - 0.8)) = 1.3; ln(1 + e^-1.3) = 0.241008. Rewards 0.5 * (2 + 0.8), 0.5 * (-1 + 1.2)."""
    assert losses(TDPO1, HAND, beta=0.5) == pytest.approx([0.241008], abs=1e-6)
    rewards_N = TDPO1.loss(HAND, TDPO1.settings(beta=0.5)).rewards_N
    assert rewards_N.tolist() == pytest.approx([1.4, 0.1])


def test_tdpo2_worked_by_hand() -> None:
    """0.5 * (3 - 0.25 * (1.2 - 0.8)) = 1.45; ln(1 + e^-1.45) = 0.210723."""
    assert losses(TDPO2, HAND, beta=0.5, alpha=0.25) == pytest.approx([0.210723], abs=1e-6)
    assert TDPO2.loss(HAND, TDPO2.settings(beta=0.5)).rewards_N.tolist() == pytest.approx([1.4, 0.1])


def test_with_alpha_1_they_are_one_and_with_alpha_0_it_is_dpo() -> None:
    examples = random_examples(TDPO1.needs, 20, seed=7)
    given_pairs = scored(examples, TDPO1.needs)
    assert losses(TDPO2, given_pairs, alpha=1.0) == pytest.approx(losses(TDPO1, given_pairs), rel=1e-14)
    dpo = losses(SIGMOID, scored(examples, SIGMOID.needs))
    assert losses(TDPO2, given_pairs, alpha=0.0) == pytest.approx(dpo, rel=1e-14)


def slopes(objective: Objective, **given_settings: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The derivative of the loss by the chosen and by the rejected answer's divergence."""
    divergence = [torch.tensor([0.8], dtype=torch.float64, requires_grad=True) for _ in range(2)]
    sides = [
        Completion(label, torch.tensor([-1.0]).double(), torch.tensor([-2.0]).double(), divergence=own)
        for label, own in zip((CHOSEN, REJECTED), divergence, strict=True)
    ]
    output = objective.loss(scored([sides], objective.needs), objective.settings(**given_settings))
    chosen, rejected = torch.autograd.grad(output.losses_U.sum(), divergence, allow_unused=True, materialize_grads=True)
    return chosen, rejected


def test_where_the_divergences_have_a_gradient() -> None:
    """At h = 0 and equal divergences the slope of -ln sigmoid(x) is -1/2: times beta, and alpha."""
    chosen, rejected = slopes(TDPO1, beta=0.4)
    assert (chosen.item(), rejected.item()) == pytest.approx((-0.2, 0.2))
    chosen, rejected = slopes(TDPO2, beta=0.4, alpha=0.5)
    assert (chosen.item(), rejected.item()) == pytest.approx((0.0, 0.1))


@both
def test_the_first_loss_is_ln_2(objective: Objective) -> None:
    same = scored(random_examples(objective.needs, 5, same=True), objective.needs)
    assert losses(objective, same) == pytest.approx([math.log(2)] * 5)


@both
@given(tokens, tokens, st.floats(0.01, 2), st.floats(0, 2))
@settings(deadline=None)
def test_as_plain_python_has_it(
    objective: Objective, chosen: list[Token], rejected: list[Token], beta: float, alpha: float
) -> None:
    w, r = (sum(p - q for p, q, _ in own) for own in (chosen, rejected))
    k_w, k_l = (sum(k for *_, k in own) for own in (chosen, rejected))
    first = objective is TDPO1
    margin = beta * (w - r - (1.0 if first else alpha) * (k_l - k_w))
    expected = math.log1p(math.exp(-abs(margin))) + max(0.0, -margin)
    found = losses(objective, pair(chosen, rejected), beta=beta, **({} if first else {"alpha": alpha}))
    assert found == pytest.approx([expected], rel=1e-9, abs=1e-12)


@both
def test_divergences_are_taken_token_by_token_or_summed(objective: Objective) -> None:
    sums: dict[str, Any] = {
        "chosen": [-3.0],
        "rejected": [-3.0],
        "reference_chosen": [-5.0],
        "reference_rejected": [-2.0],
    }
    by_token = loss(objective.name, **sums, chosen_kl=[[0.5, 0.3]], rejected_kl=[[1.2]], beta=0.5)
    assert by_token == loss(objective.name, **sums, chosen_kl=[0.8], rejected_kl=[1.2], beta=0.5)
    assert by_token == pytest.approx(losses(objective, HAND, beta=0.5))


@both
@pytest.mark.parametrize("value", [0.0, 1e4])
def test_far_out_it_is_finite(objective: Objective, value: float) -> None:
    own, other = torch.full((1,), value).requires_grad_(), torch.full((1,), 1e4 - value).requires_grad_()
    far = [
        Completion(CHOSEN, -1e4 + 0 * own.detach(), torch.zeros(1), divergence=own),
        Completion(REJECTED, torch.zeros(1), -1e4 + 0 * own.detach(), divergence=other),
    ]
    output = objective.loss(scored([far], objective.needs), objective.settings())
    output.losses_U.sum().backward()
    assert output.losses_U.isfinite().all()
    assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in (own, other))


@both
def test_without_beta_nothing_is_told_apart(objective: Objective) -> None:
    far = scored(random_examples(objective.needs, 5, seed=6), objective.needs)
    assert losses(objective, far, beta=1e-12) == pytest.approx([math.log(2)] * 5, rel=1e-9)
