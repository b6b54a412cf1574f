"""`dpop` and `cal_dpo` against their equations, worked by hand and by plain Python."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_pairs import AT_REFERENCE, BY_HAND, Pair, any_pair, ell, loss_of, rewards_of

from tiltlm.objectives.displacement_guards import CAL_DPO, DPOP
from tiltlm.objectives.dpo import SIGMOID


def test_dpop_worked_by_hand() -> None:
    """A chosen answer that gained: DPO. One that lost 0.1 nats of a margin of 7: 0.3 * (7 - 50 * 0.1) = 0.6,
    ln(1 + e^-0.6) = 0.437488 (arXiv 2402.13228)."""
    assert loss_of(DPOP, BY_HAND) == loss_of(SIGMOID, BY_HAND, beta=0.3)
    assert loss_of(DPOP, Pair(-10.1, -17.1, -10, -10)) == pytest.approx(0.437488, abs=1e-6)
    assert loss_of(DPOP, AT_REFERENCE) == pytest.approx(math.log(2))
    assert rewards_of(DPOP, BY_HAND) == pytest.approx([0.6, -1.5])


@given(any_pair, st.floats(0.01, 1), st.floats(0, 500))
@settings(deadline=None)
def test_dpop_as_plain_python_has_it(pair: Pair, beta: float, penalty: float) -> None:
    wanted = ell(beta * (pair.h - penalty * max(0.0, -pair.up)))
    assert loss_of(DPOP, pair, beta=beta, penalty=penalty) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_cal_dpo_worked_by_hand() -> None:
    """Target 5: ln(1 + e^-7) = 0.000911, (2 - 5)^2 + (-5 + 5)^2 = 9; with the code's weight of 0.5 4.5
    (arXiv 2412.14516)."""
    assert loss_of(CAL_DPO, BY_HAND, beta=0.1) == pytest.approx(9.000911, abs=1e-6)
    assert loss_of(CAL_DPO, BY_HAND, beta=0.1, calibration_weight=0.5) == pytest.approx(4.500911, abs=1e-6)
    assert loss_of(CAL_DPO, AT_REFERENCE, beta=0.1) == pytest.approx(math.log(2) + 50)
    assert rewards_of(CAL_DPO, BY_HAND, beta=0.1) == pytest.approx([0.2, -0.5])


@given(any_pair, st.floats(1e-3, 1), st.floats(0, 2))
@settings(deadline=None)
def test_cal_dpo_as_plain_python_has_it(pair: Pair, beta: float, weight: float) -> None:
    squares = (pair.up - 0.5 / beta) ** 2 + (pair.down + 0.5 / beta) ** 2
    found = loss_of(CAL_DPO, pair, beta=beta, calibration_weight=weight)
    assert found == pytest.approx(ell(pair.h) + weight * squares, rel=1e-9, abs=1e-9)
