"""`discopop` against its equation, worked by hand and by plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_pairs import AT_REFERENCE, BY_HAND, Pair, any_pair, ell, loss_of, rewards_of, sigma
from scored_examples import pairs

from tiltlm.objectives.discopop import DISCOPOP, DiscopopSettings, discopop


def test_worked_by_hand() -> None:
    """x = 0.05 * 7 = 0.35, m = 1/(1+e^-7) = 0.999089: 0.000911 * 0.533382 + 0.999089 * 0.704688 = 0.704532
    (arXiv 2406.08414, eq. 5)."""
    assert loss_of(DISCOPOP, BY_HAND) == pytest.approx(0.704532, abs=2e-6)
    assert loss_of(DISCOPOP, AT_REFERENCE) == pytest.approx((1 + math.log(2)) / 2)
    assert rewards_of(DISCOPOP, BY_HAND) == pytest.approx([0.1, -0.25])


@given(any_pair, st.floats(0.01, 1), st.floats(0.05, 1))
@settings(deadline=None)
def test_as_plain_python_has_it(pair: Pair, beta: float, tau: float) -> None:
    x = beta * pair.h
    wanted = sigma(-x / tau) * ell(x) + math.exp(-ell(x / tau) - x)
    assert loss_of(DISCOPOP, pair, beta=beta, tau=tau) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_where_the_exponential_alone_would_overflow_it_is_dpos_loss() -> None:
    assert loss_of(DISCOPOP, Pair(-1e4, 0, 0, 0), beta=1.0) == pytest.approx(1e4)


def test_a_pair_may_come_to_rest_below_0() -> None:
    """With tau 0.05 the loss has a minimum near x = -0.1 and a hill before it falls for good."""
    losses = [loss_of(DISCOPOP, Pair(x, 0, 0, 0), beta=1.0, tau=0.05) for x in (-0.3, -0.1, 0.0, 0.07, 0.5)]
    assert losses[0] > losses[1] < losses[2] < losses[3] > losses[4]


@pytest.mark.parametrize(("tau", "sign"), [(0.05, 1), (0.2, -1)])
def test_near_a_margin_of_0_the_sign_of_the_slope_depends_on_tau(tau: float, sign: int) -> None:
    """(1 - ln 2) / (4 tau) - 3/4 by x: positive below tau = 0.10, so a step widens no margin there."""
    same = pairs([0.0], [0.0], [0.0], [0.0])
    same.logps_N.requires_grad_()
    discopop(same, DiscopopSettings(beta=1.0, tau=tau)).losses_U.sum().backward()
    assert same.logps_N.grad is not None
    slope = float(same.logps_N.grad[0])
    assert slope == pytest.approx((1 - math.log(2)) / (4 * tau) - 0.75)
    assert slope * sign > 0
    assert torch.isfinite(same.logps_N.grad).all()
