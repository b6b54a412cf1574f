"""`sigmoid` against its equations, worked by hand and by plain Python."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_examples import losses, pairs
from torch.nn import functional as F

from tiltlm.objectives.dpo import SIGMOID, SigmoidSettings, sigmoid

logps = st.floats(-200, 0)
betas = st.floats(0.01, 2)


def test_worked_by_hand() -> None:
    """h = (-10 + 12) - (-30 + 25) = 7; beta h = 0.7; -ln(1/(1+e^-0.7)) = 0.403186 (arXiv 2305.18290, eq. 7)."""
    output = sigmoid(pairs([-10], [-30], [-12], [-25]), SigmoidSettings(beta=0.1))
    assert output.losses_U.tolist() == pytest.approx([0.403186], abs=1e-6)
    assert output.rewards_N.tolist() == pytest.approx([0.2, -0.5])


def test_smoothing_worked_by_hand() -> None:
    """0.9 * 0.403186 + 0.1 * (0.403186 + 0.7) = 0.473186: flipping a label costs beta h more (cDPO, eq. 3)."""
    given_pairs = pairs([-10], [-30], [-12], [-25])
    assert losses(SIGMOID, given_pairs, beta=0.1, label_smoothing=0.1) == pytest.approx([0.473186], abs=1e-6)


def test_the_first_loss_is_ln_2_whatever_the_smoothing() -> None:
    same = pairs([-3.0, -50.0], [-4.0, -1.0], [-3.0, -50.0], [-4.0, -1.0])
    for smoothing in (0.0, 0.2):
        assert losses(SIGMOID, same, beta=0.37, label_smoothing=smoothing) == pytest.approx([math.log(2)] * 2)


def test_the_gradient_is_the_papers() -> None:
    """d loss / d log pi(y_w) = -beta sigmoid(-beta h): the weight of eq. 8 of arXiv 2305.18290."""
    given_pairs = pairs([-10, -3], [-30, -2], [-12, -4], [-25, -5])
    given_pairs.logps_N.requires_grad_()
    sigmoid(given_pairs, SigmoidSettings(beta=0.1)).losses_U.sum().backward()
    h = torch.tensor([7.0, 1.0 - 3.0], dtype=torch.float64)
    weight = 0.1 * torch.sigmoid(-0.1 * h)
    torch.testing.assert_close(given_pairs.logps_N.grad, torch.stack([-weight, weight], dim=1).flatten())


def test_extreme_margins_are_linear_and_zero() -> None:
    extreme = pairs([0.0, -1e5], [-1e5, 0.0], [0, 0], [0, 0])
    assert losses(SIGMOID, extreme, beta=1.0) == pytest.approx([0.0, 1e5])


@given(logps, logps, logps, logps, betas, st.floats(0, 0.49))
@settings(deadline=None)
def test_as_plain_python_has_it(pw: float, pl: float, rw: float, rl: float, beta: float, e: float) -> None:
    h = (pw - rw) - (pl - rl)
    # log(1 + exp(x)), also where exp(x) is beyond what a float holds.
    minus, plus = (max(x, 0.0) + math.log1p(math.exp(-abs(x))) for x in (-beta * h, beta * h))
    expected = (1 - e) * minus + e * plus
    found = losses(SIGMOID, pairs([pw], [pl], [rw], [rl]), beta=beta, label_smoothing=e)
    assert found == pytest.approx([expected], rel=1e-9, abs=1e-12)


@given(logps, logps, logps, logps, betas)
@settings(deadline=None)
def test_swapping_the_pair_swaps_the_label(pw: float, pl: float, rw: float, rl: float, beta: float) -> None:
    """-log sigmoid(x) + log sigmoid(-x) = -x, so the two losses differ by exactly beta h."""
    (forward,) = losses(SIGMOID, pairs([pw], [pl], [rw], [rl]), beta=beta)
    (swapped,) = losses(SIGMOID, pairs([pl], [pw], [rl], [rw]), beta=beta)
    assert swapped - forward == pytest.approx(beta * ((pw - rw) - (pl - rl)), abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_bits_are_those_of_the_formula_over_columns(dtype: torch.dtype, smoothing: float) -> None:
    """How sequences are laid out changes no bit: the same as with chosen and rejected in tensors of their own."""
    generator = torch.Generator().manual_seed(0)
    policy_P2, reference_P2 = (-300 * torch.rand(2, 500, 2, generator=generator, dtype=torch.float64)).to(dtype)
    blank = pairs([0.0] * 500, [0.0] * 500, [0.0] * 500, [0.0] * 500)
    filled = replace(blank, logps_N=policy_P2.flatten(), reference_logps_N=reference_P2.flatten())
    found = sigmoid(filled, SigmoidSettings(beta=0.37, label_smoothing=smoothing)).losses_U
    chosen, rejected = (policy_P2[:, side] - reference_P2[:, side] for side in (0, 1))
    logits = 0.37 * (chosen - rejected)
    assert torch.equal(found, -(1 - smoothing) * F.logsigmoid(logits) - smoothing * F.logsigmoid(-logits))


@pytest.mark.parametrize(
    "wrong", [{"beta": 0.0}, {"beta": -1.0}, {"beta": math.inf}, {"label_smoothing": 0.5}, {"label_smoothing": -0.1}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SigmoidSettings(**wrong)
