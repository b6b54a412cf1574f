"""Each objective against its equation, worked by hand or by plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltlm.dpo_loss import LOSSES, ipo, sigmoid
from tiltlm.records import LossSettings, PairLogps


def logps(chosen: list[float], rejected: list[float], tokens: tuple[int, int] = (1, 1)) -> PairLogps:
    pairs = len(chosen)
    return PairLogps(
        torch.tensor(chosen, dtype=torch.float64),
        torch.tensor(rejected, dtype=torch.float64),
        torch.full((pairs,), tokens[0]),
        torch.full((pairs,), tokens[1]),
    )


def test_sigmoid_worked_by_hand() -> None:
    """h = (-10 + 12) - (-30 + 25) = 7; beta h = 0.7; -ln(1/(1+e^-0.7)) = 0.403186 (arXiv 2305.18290, eq. 7)."""
    output = sigmoid(logps([-10], [-30]), logps([-12], [-25]), LossSettings(beta=0.1))
    assert output.losses_P.item() == pytest.approx(0.403186, abs=1e-6)
    assert output.chosen_rewards_P.item() == pytest.approx(0.2)
    assert output.rejected_rewards_P.item() == pytest.approx(-0.5)


def test_conservative_sigmoid_worked_by_hand() -> None:
    """0.9 * 0.403186 + 0.1 * (0.403186 + 0.7) = 0.473186: flipping a label costs beta h more (cDPO, eq. 3)."""
    output = sigmoid(logps([-10], [-30]), logps([-12], [-25]), LossSettings(beta=0.1, label_smoothing=0.1))
    assert output.losses_P.item() == pytest.approx(0.473186, abs=1e-6)


def test_ipo_worked_by_hand() -> None:
    """Per token: 2/4 - (-5)/10 = 1; target 1/(2*0.1) = 5; (1 - 5)^2 = 16 (arXiv 2310.12036, eq. 17)."""
    output = ipo(logps([-10], [-30], (4, 10)), logps([-12], [-25], (4, 10)), LossSettings(beta=0.1))
    assert output.losses_P.item() == pytest.approx(16.0)
    assert output.chosen_rewards_P.item() == pytest.approx(0.2)


def test_first_losses() -> None:
    """Policy equals reference: ln 2 for sigmoid, smoothed or not; 1 / (4 beta^2) for IPO."""
    same = logps([-3.0, -50.0], [-4.0, -1.0], (3, 5))
    for smoothing in (0.0, 0.2):
        losses = sigmoid(same, same, LossSettings(0.37, smoothing)).losses_P
        torch.testing.assert_close(losses, torch.full((2,), math.log(2), dtype=torch.float64))
    torch.testing.assert_close(ipo(same, same, LossSettings(0.5)).losses_P, torch.ones(2, dtype=torch.float64))


def test_sigmoid_gradient_is_the_papers() -> None:
    """d loss / d log pi(y_w) = -beta sigmoid(-beta h): the weight of eq. 8 of arXiv 2305.18290."""
    chosen = torch.tensor([-10.0, -3.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-30.0, -2.0], dtype=torch.float64, requires_grad=True)
    ones = torch.ones(2, dtype=torch.long)
    reference = logps([-12, -4], [-25, -5])
    sigmoid(PairLogps(chosen, rejected, ones, ones), reference, LossSettings(0.1)).losses_P.sum().backward()
    h = torch.tensor([7.0, 1.0 - 3.0], dtype=torch.float64)
    weight = 0.1 * torch.sigmoid(-0.1 * h)
    torch.testing.assert_close(chosen.grad, -weight)
    torch.testing.assert_close(rejected.grad, weight)


def test_extreme_margins_stay_finite() -> None:
    policy = logps([0.0, -1e5], [-1e5, 0.0])
    losses = sigmoid(policy, logps([0, 0], [0, 0]), LossSettings(1.0)).losses_P
    assert losses.tolist() == pytest.approx([0.0, 1e5])


finite = st.floats(-200, 0)


@given(finite, finite, finite, finite, st.floats(0.01, 2), st.sampled_from(sorted(LOSSES)))
@settings(deadline=None)
def test_only_the_log_ratios_matter(pw: float, pl: float, rw: float, rl: float, beta: float, name: str) -> None:
    """Scaling policy and reference of one completion alike (another partition function) changes nothing."""
    base = LOSSES[name](logps([pw], [pl]), logps([rw], [rl]), LossSettings(beta))
    moved = LOSSES[name](logps([pw - 7], [pl + 3]), logps([rw - 7], [rl + 3]), LossSettings(beta))
    torch.testing.assert_close(base.losses_P, moved.losses_P, rtol=1e-9, atol=1e-9)
    assert not base.chosen_rewards_P.requires_grad


@given(finite, finite, finite, finite, st.floats(0.01, 2))
@settings(deadline=None)
def test_swapping_the_pair_swaps_the_label(pw: float, pl: float, rw: float, rl: float, beta: float) -> None:
    """-log sigmoid(x) + log sigmoid(-x) = -x, so the two losses differ by exactly beta h."""
    forward = sigmoid(logps([pw], [pl]), logps([rw], [rl]), LossSettings(beta)).losses_P.item()
    swapped = sigmoid(logps([pl], [pw]), logps([rl], [rw]), LossSettings(beta)).losses_P.item()
    assert swapped - forward == pytest.approx(beta * ((pw - rw) - (pl - rl)), abs=1e-7)
