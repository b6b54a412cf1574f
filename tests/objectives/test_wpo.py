"""`wpo` against its equation, worked by hand and by plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_examples import Completion, losses, random_examples, scored

from tiltlm.objectives.dpo import SIGMOID
from tiltlm.objectives.interface import CHOSEN, REJECTED, Scored
from tiltlm.objectives.wpo import WPO, WpoSettings, wpo

Token = tuple[float, float, float]
"""Log-probability under policy and reference, log of the sum of squares."""
tokens = st.lists(st.tuples(st.floats(-9, 0), st.floats(-9, 0), st.floats(-9, 0)), min_size=1, max_size=6)


def completion(label: int, values: list[Token]) -> Completion:
    policy, reference, log_squares = torch.tensor(values, dtype=torch.float64).unbind(1)
    return Completion(label, policy, reference, log_squares)


def pair(chosen: list[Token], rejected: list[Token]) -> Scored:
    return scored([[completion(CHOSEN, chosen), completion(REJECTED, rejected)]], WPO.needs)


def test_worked_by_hand() -> None:
    """Chosen: mean of (-1 + 0.5) and (-2 + 1) is -0.75; rejected: -3 + 2 = -1; weight e^-1.75 = 0.173774. h is
    (-3 + 5) - (-3 + 2) = 3, 0.1 * 3 = 0.3, -ln sigmoid(0.3) = 0.554355; 0.173774 * 0.554355 = 0.096333."""
    given_pair = pair([(-1, -2, -0.5), (-2, -3, -1)], [(-3, -2, -2)])
    output = wpo(given_pair, WpoSettings(beta=0.1))
    assert output.losses_U.tolist() == pytest.approx([0.096333], abs=1e-6)
    assert output.rewards_N.tolist() == pytest.approx([0.2, -0.1])


def test_a_weight_is_at_most_1_as_the_authors_have_it() -> None:
    """Mean of log-probabilities above that of a token that is drawn: e^(0.9 + 0.2) is cut; TRL would take 3.004."""
    given_pair = pair([(-0.1, -1, -1)], [(-0.8, -1, -1)])
    assert losses(WPO, given_pair, beta=0.5) == pytest.approx(losses(SIGMOID, given_pair, beta=0.5), rel=1e-14)
    lower = pair([(-0.1, -1, -1)], [(-2.0, -1, -1)])
    assert losses(WPO, lower, beta=0.5) == pytest.approx(
        [math.exp(0.9 - 1.0) * losses(SIGMOID, lower, beta=0.5)[0]], rel=1e-12
    )


def test_the_weight_has_no_gradient() -> None:
    examples = random_examples(WPO.needs, 6, seed=3)
    policies = [one.policy.requires_grad_() for example in examples for one in example]
    given_pairs = scored(examples, WPO.needs)
    plain_U = SIGMOID.loss(given_pairs, SIGMOID.settings(beta=0.01)).losses_U
    weights_U = wpo(given_pairs, WpoSettings()).losses_U / plain_U
    found = torch.autograd.grad(wpo(given_pairs, WpoSettings()).losses_U.sum(), policies, retain_graph=True)
    wanted = torch.autograd.grad((weights_U.detach() * plain_U).sum(), policies)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_answers_of_its_own_weigh_1_on_average_and_no_answer_of_an_even_choice_weighs_less() -> None:
    """Where all tokens are as likely, every one of them is what a drawn one is: the weight is 1."""
    even = math.log(1 / 7)
    assert losses(WPO, pair([(even, -1, even)] * 3, [(even, -2, even)]), beta=0.2) == pytest.approx(
        losses(SIGMOID, pair([(even, -1, even)] * 3, [(even, -2, even)]), beta=0.2)
    )


def test_the_first_loss_is_ln_2_times_the_weight() -> None:
    examples = random_examples(WPO.needs, 5, same=True)
    found = losses(WPO, scored(examples, WPO.needs))
    assert all(0 < loss <= math.log(2) for loss in found)


@given(tokens, tokens, st.floats(0.01, 2))
@settings(deadline=None)
def test_as_plain_python_has_it(chosen: list[Token], rejected: list[Token], beta: float) -> None:
    def log_weight(own: list[Token]) -> float:
        return sum(p - s for p, _, s in own) / len(own)

    margin = sum(p - r for p, r, _ in chosen) - sum(p - r for p, r, _ in rejected)
    weight = math.exp(min(0.0, log_weight(chosen) + log_weight(rejected)))
    expected = weight * (math.log1p(math.exp(-abs(beta * margin))) + max(0.0, -beta * margin))
    assert losses(WPO, pair(chosen, rejected), beta=beta) == pytest.approx([expected], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("value", [-1e4, 1e4])
def test_far_out_it_is_finite(value: float) -> None:
    policy, nothing = torch.full((2,), value).requires_grad_(), torch.zeros(2)
    far = [Completion(CHOSEN, policy, nothing, -policy.detach()), Completion(REJECTED, nothing, policy.detach())]
    output = wpo(scored([far], WPO.needs), WpoSettings(beta=1.0))
    output.losses_U.sum().backward()
    assert output.losses_U.isfinite().all()
    assert policy.grad is not None and policy.grad.isfinite().all()


def test_without_beta_only_the_weight_tells_pairs_apart() -> None:
    given_pair = pair([(-1, -2, -0.5), (-2, -3, -1)], [(-3, -2, -2)])
    assert losses(WPO, given_pair, beta=1e-12) == pytest.approx([math.exp(-1.75) * math.log(2)], rel=1e-9)
