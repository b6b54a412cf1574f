"""`robust` against its equation, worked by hand and by plain Python."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_pairs import BY_HAND, Pair, any_pair, ell, loss_of, rewards_of

from tiltlm.objectives.dpo import SIGMOID
from tiltlm.objectives.noise import ROBUST, RobustSettings

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
