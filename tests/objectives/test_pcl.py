"""Path consistency: worked numbers, and what it is least at."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scored_examples import Completion, scored

from tiltlm import loss
from tiltlm.errors import ConfigError
from tiltlm.objectives.interface import CHOSEN, REJECTED
from tiltlm.objectives.pcl import PCL, PclSettings


def completion(ratios: list[float], credit: list[float], score: float) -> Completion:
    reference = torch.full((len(ratios),), -1.5, dtype=torch.float64)
    label = CHOSEN if score > 0 else REJECTED
    policy = reference + torch.tensor(ratios, dtype=torch.float64)
    return Completion(label, policy, reference, score=score, credit=torch.tensor(credit, dtype=torch.float64))


def test_worked_numbers() -> None:
    """Half of the log-ratios less credit: (0.5 - 0.25, -0.5 - 0), and (0 + 0.5): squares 0.0625 + 0.25, and 0.25."""
    examples = [[completion([1.0, -1.0], [0.25, 0.0], 1.0), completion([0.0], [-0.5], 0.0)]]
    output = PCL.loss(scored(examples, PCL.needs), PclSettings(beta=0.5))
    assert output.losses_U.tolist() == pytest.approx([(0.3125 + 0.25) / 2], abs=1e-15)
    assert output.rewards_N.tolist() == pytest.approx([0.0, 0.0], abs=1e-15)


@given(st.lists(st.integers(2, 4), min_size=1, max_size=4), st.integers(0, 2**31), st.floats(0.01, 2))
def test_it_is_nothing_where_log_ratios_are_credit_over_beta(lists: list[int], seed: int, beta: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for count in lists:
        drawn = [torch.randn(1 + place, generator=generator).double() for place in range(count)]
        examples.append([completion((own / beta).tolist(), own.tolist(), float(n)) for n, own in enumerate(drawn)])
    losses_U = PCL.loss(scored(examples, PCL.needs), PclSettings(beta=beta)).losses_U
    torch.testing.assert_close(losses_U, torch.zeros(len(lists), dtype=torch.float64), rtol=0, atol=1e-20)


def test_with_soft_values_the_tilted_model_is_its_minimum() -> None:
    """Two tokens of two kinds, all four answers: credit made of V = beta * log E exp(r / beta) gives the exact tilt."""
    beta, first, second = 0.7, torch.tensor([0.3, 0.7]).double(), torch.tensor([[0.6, 0.4], [0.1, 0.9]]).double()
    rewards = torch.tensor([[1.0, -0.5], [0.25, 2.0]]).double()
    after_first = beta * (second * (rewards / beta).exp()).sum(1).log()
    start = beta * (first * (after_first / beta).exp()).sum().log()
    joint = first[:, None] * second
    tilted = joint * (rewards / beta).exp()
    tilted /= tilted.sum()
    answers = []
    for a, b in itertools.product(range(2), range(2)):
        policy = torch.stack([tilted[a].sum(), tilted[a, b] / tilted[a].sum()]).log()
        reference = torch.stack([first[a], second[a, b]]).log()
        credit = torch.stack([after_first[a] - start, rewards[a, b] - after_first[a]])
        answers.append(Completion(CHOSEN, policy, reference, score=float(rewards[a, b]), credit=credit))
    assert float(PCL.loss(scored([answers], PCL.needs), PclSettings(beta=beta)).losses_U) < 1e-28


def test_by_hand_it_is_a_sum_over_tokens() -> None:
    found = loss(
        "pcl",
        answers_token_logps=[[[-1.0, -1.0, 0.0], [-2.0]]],
        reference_answers_token_logps=[[[-2.0, -1.0, -2.0], [-2.0]]],
        answers_credit=[[[0.0, 0.0, 2.0], [0.0]]],
        beta=1.0,
    )
    assert found == [0.5]


def test_arguments_by_hand_that_do_not_fit_are_named() -> None:
    ones = [[[-1.0], [-1.0]]]
    with pytest.raises(ConfigError, match="answers_credit` and `answers_token_logps` differ"):
        loss("pcl", answers_token_logps=ones, reference_answers_token_logps=ones, answers_credit=[[[0.0, 1.0], [0.0]]])
    with pytest.raises(ConfigError, match="needs `answers_credit`"):
        loss("pcl", answers_token_logps=ones, reference_answers_token_logps=ones)
    with pytest.raises(ConfigError, match="two or more for each list"):
        one = [[[-1.0]]]
        loss("pcl", answers_token_logps=one, reference_answers_token_logps=one, answers_credit=one)
    with pytest.raises(ConfigError, match="a list with a list for each prompt"):
        shallow: Any = [-1.0]
        loss("pcl", answers_token_logps=shallow, reference_answers_token_logps=ones, answers_credit=ones)
    with pytest.raises(ConfigError, match="must hold numbers"):
        words: Any = [[["a"], ["b"]]]
        loss("pcl", answers_token_logps=words, reference_answers_token_logps=ones, answers_credit=ones)


def test_gradients_flow_through_tensors() -> None:
    policy = [torch.tensor([-1.0, -2.0], requires_grad=True), torch.tensor([-1.0], requires_grad=True)]
    plain = [[torch.tensor([-1.0, -2.0]), torch.tensor([-1.0])]]
    found = loss(
        "pcl",
        answers_token_logps=[policy],
        reference_answers_token_logps=plain,
        answers_credit=[[torch.tensor([0.5, 0.0]), torch.tensor([-0.5])]],
        beta=0.5,
    )
    assert isinstance(found, torch.Tensor)
    found.sum().backward()
    assert policy[0].grad is not None
    assert policy[0].grad.tolist() == [-0.25, 0.0]
