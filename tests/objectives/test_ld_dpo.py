"""`ld_dpo` against its equation, worked by hand and by plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_examples import Completion, losses, random_examples, scored

from tiltlm.objectives.dpo import SIGMOID
from tiltlm.objectives.interface import CHOSEN, REJECTED, Scored
from tiltlm.objectives.ld_dpo import LD_DPO, LdDpoSettings, ld_dpo

token_logps = st.lists(st.tuples(st.floats(-9, 0), st.floats(-9, 0)), min_size=1, max_size=6)


def completion(label: int, tokens: list[tuple[float, float]]) -> Completion:
    policy, reference = torch.tensor(tokens, dtype=torch.float64).unbind(1)
    return Completion(label, policy, reference)


def pair(chosen: list[tuple[float, float]], rejected: list[tuple[float, float]]) -> Scored:
    return scored([[completion(CHOSEN, chosen), completion(REJECTED, rejected)]], LD_DPO.needs)


def test_worked_by_hand() -> None:
    """Log-ratios 1, 2 | 3, 1 and -1, 0.5, two tokens shared: 3 + 0.5 * 4 = 5 against -0.5; 0.1 * 5.5 = 0.55;
    -ln(1/(1+e^-0.55)) = 0.455492 (arXiv 2409.06411)."""
    given_pair = pair([(-1, -2), (-1, -3), (-2, -5), (-1, -2)], [(-3, -2), (-1, -1.5)])
    output = ld_dpo(given_pair, LdDpoSettings(beta=0.1, alpha=0.5))
    assert output.losses_U.tolist() == pytest.approx([0.455492], abs=1e-6)
    assert output.rewards_N.tolist() == pytest.approx([0.7, -0.05]), "of whole completions"


def test_the_longer_side_is_discounted_whichever_it_is() -> None:
    """The same completions with their labels swapped: 0.1 * -5.5, so the loss is 0.55 more."""
    given_pair = pair([(-3, -2), (-1, -1.5)], [(-1, -2), (-1, -3), (-2, -5), (-1, -2)])
    assert losses(LD_DPO, given_pair) == pytest.approx([0.455492 + 0.55], abs=1e-6)


def test_with_alpha_1_and_for_equal_lengths_it_is_dpo() -> None:
    examples = random_examples(LD_DPO.needs, 20, seed=7)
    dpo = losses(SIGMOID, scored(examples, SIGMOID.needs), beta=0.3)
    assert losses(LD_DPO, scored(examples, LD_DPO.needs), beta=0.3, alpha=1.0) == pytest.approx(dpo, rel=1e-14)
    even = [[Completion(one.label, one.policy[:1], one.reference[:1]) for one in example] for example in examples]
    of_even = losses(SIGMOID, scored(even, SIGMOID.needs), beta=0.3)
    assert losses(LD_DPO, scored(even, LD_DPO.needs), beta=0.3, alpha=0.2) == pytest.approx(of_even, rel=1e-14)


def test_with_alpha_0_nothing_is_learnt_from_the_rest() -> None:
    examples = random_examples(LD_DPO.needs, 20, seed=8)
    for example in examples:
        for one in example:
            one.policy.requires_grad_()
    ld_dpo(scored(examples, LD_DPO.needs), LdDpoSettings(alpha=0.0)).losses_U.sum().backward()
    for chosen, rejected in examples:
        shared = min(len(chosen.policy), len(rejected.policy))
        for one in (chosen, rejected):
            assert one.policy.grad is not None
            assert one.policy.grad[:shared].ne(0).all()
            assert one.policy.grad[shared:].eq(0).all()


def test_the_first_loss_is_ln_2() -> None:
    same = scored(random_examples(LD_DPO.needs, 5, same=True), LD_DPO.needs)
    assert losses(LD_DPO, same, alpha=0.3) == pytest.approx([math.log(2)] * 5)


@given(token_logps, token_logps, st.floats(0.01, 2), st.floats(0, 1))
@settings(deadline=None)
def test_as_plain_python_has_it(
    chosen: list[tuple[float, float]], rejected: list[tuple[float, float]], beta: float, alpha: float
) -> None:
    shared = min(len(chosen), len(rejected))

    def discounted(tokens: list[tuple[float, float]]) -> float:
        return sum((p - r) * (1 if place < shared else alpha) for place, (p, r) in enumerate(tokens))

    expected = math.log1p(math.exp(-beta * (discounted(chosen) - discounted(rejected))))
    found = losses(LD_DPO, pair(chosen, rejected), beta=beta, alpha=alpha)
    assert found == pytest.approx([expected], rel=1e-9, abs=1e-12)
