"""`robust` and `ropo` against their equations, worked by hand and by plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_pairs import AT_REFERENCE, BY_HAND, Pair, any_pair, ell, loss_of, rewards_of, sigma
from scored_examples import pairs

from tiltlm.objectives.dpo import SIGMOID
from tiltlm.objectives.noise import ROBUST, ROPO, RobustSettings, RopoSettings, ropo

betas = st.floats(0.01, 2)


def test_robust_worked_by_hand() -> None:
    """beta h = 0.7: l = 0.403186, with the label flipped 1.103186; (0.9 * 0.403186 - 0.1 * 1.103186) / 0.8 = 0.315686
    (arXiv 2403.00409, eq. 12)."""
    assert loss_of(ROBUST, BY_HAND) == pytest.approx(0.315686, abs=1e-6)
    assert rewards_of(ROBUST, BY_HAND) == pytest.approx([0.2, -0.5])


@given(any_pair, betas, st.floats(0, 0.49))
@settings(deadline=None)
def test_robust_as_plain_python_has_it(pair: Pair, beta: float, e: float) -> None:
    x = beta * pair.h
    wanted = ((1 - e) * ell(x) - e * ell(-x)) / (1 - 2 * e)
    found = loss_of(ROBUST, pair, beta=beta, label_smoothing=e)
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9 * (1 + abs(x)) / (1 - 2 * e))


@given(any_pair, betas, st.floats(0, 0.49))
@settings(deadline=None)
def test_robust_is_dpo_on_average_over_flips(pair: Pair, beta: float, e: float) -> None:
    """What it is for: (1 - e) times the loss and e times that of the flipped pair is DPO's loss of the true one."""
    flipped = Pair(pair.rejected, pair.chosen, pair.reference_rejected, pair.reference_chosen)
    both = [loss_of(ROBUST, one, beta=beta, label_smoothing=e) for one in (pair, flipped)]
    mean = (1 - e) * both[0] + e * both[1]
    assert mean == pytest.approx(loss_of(SIGMOID, pair, beta=beta), rel=1e-6, abs=1e-6 * (1 + abs(beta * pair.h)))


def test_robust_without_noise_is_dpo_and_it_has_no_floor() -> None:
    assert loss_of(ROBUST, BY_HAND, label_smoothing=0.0) == loss_of(SIGMOID, BY_HAND)
    assert loss_of(ROBUST, Pair(0, -1e4, 0, 0), beta=1.0) == pytest.approx(-0.1 * 1e4 / 0.8)
    with pytest.raises(ValueError, match="label_smoothing"):
        RobustSettings(label_smoothing=0.5)


def test_ropo_worked_by_hand() -> None:
    """beta h = 0.7: sigmoid(-0.7) = 0.331812; 56 / 225 * (0.403186 + 14 * 0.331812) = 1.25653 (arXiv 2404.04102)."""
    assert loss_of(ROPO, BY_HAND) == pytest.approx(1.25653, abs=1e-6)
    assert loss_of(ROPO, AT_REFERENCE) == pytest.approx(56 / 225 * (math.log(2) + 7))
    with pytest.raises(ValueError, match="alpha"):
        RopoSettings(alpha=2.0)


@given(any_pair, betas, st.floats(2.1, 30))
@settings(deadline=None)
def test_ropo_as_plain_python_has_it(pair: Pair, beta: float, a: float) -> None:
    x = beta * pair.h
    wanted = 4 * a / (1 + a) ** 2 * (ell(x) + a * sigma(-x))
    assert loss_of(ROPO, pair, beta=beta, alpha=a) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_ropos_slope_is_at_most_1_and_falls_where_a_pair_is_contradicted() -> None:
    """In units of beta: 1 at sigmoid(-x) = (1 + a) / (2 a) = 15/28, less on either side; DPO's goes on growing."""
    peak = -math.log((15 / 28) / (1 - 15 / 28))
    margins = [peak, peak - 1.0, peak - 5.0, peak + 1.0]
    given_pairs = pairs(margins, [0.0] * 4, [0.0] * 4, [0.0] * 4)
    given_pairs.logps_N.requires_grad_()
    ropo(given_pairs, RopoSettings(beta=1.0)).losses_U.sum().backward()
    assert given_pairs.logps_N.grad is not None
    slopes = (-given_pairs.logps_N.grad[::2]).tolist()
    assert slopes[0] == pytest.approx(1.0, rel=1e-12)
    assert slopes[2] < slopes[1] < 1.0 and slopes[3] < 1.0
    assert torch.isfinite(given_pairs.logps_N.grad).all()
