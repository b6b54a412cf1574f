"""`simpo` against its equation, worked by hand and by plain Python."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_examples import losses, pairs

from tiltlm.objectives.simpo import SIMPO, SimpoSettings, simpo

logps = st.floats(-200, 0)
lengths = st.integers(1, 50)
UNREAD = [math.nan]


def test_worked_by_hand() -> None:
    """Means -2 and -3: 2 * (1 - 0.25) = 1.5; -ln(1/(1+e^-1.5)) = 0.201413 (arXiv 2405.14734, eq. 6)."""
    output = simpo(pairs([-8], [-30], UNREAD, UNREAD, tokens=(4, 10)), SimpoSettings())
    assert output.losses_U.tolist() == pytest.approx([0.201413], abs=1e-6)
    assert output.rewards_N.tolist() == pytest.approx([-4.0, -6.0])


def test_equal_answers_cost_the_margin() -> None:
    """gamma = 0.25 * 2 = 0.5: ln(1 + e^0.5) = 0.974077, TRL's default gamma; and without a margin ln 2."""
    same = pairs([-6], [-9], UNREAD, UNREAD, tokens=(2, 3))
    assert losses(SIMPO, same) == pytest.approx([0.974077], abs=1e-6)
    assert losses(SIMPO, same, gamma_beta_ratio=0.0) == pytest.approx([math.log(2)])


@given(logps, logps, lengths, lengths, st.floats(0.01, 5), st.floats(0, 2))
@settings(deadline=None)
def test_as_plain_python_has_it(pw: float, pl: float, nw: int, nl: int, beta: float, ratio: float) -> None:
    x = beta * pw / nw - beta * pl / nl - ratio * beta
    expected = math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x)) - x
    found = losses(SIMPO, pairs([pw], [pl], UNREAD, UNREAD, tokens=(nw, nl)), beta=beta, gamma_beta_ratio=ratio)
    assert found == pytest.approx([expected], rel=1e-9, abs=1e-12)


@given(logps, logps, st.floats(0.1, 5))
@settings(deadline=None)
def test_a_margin_moves_the_loss_as_less_lead_would(pw: float, pl: float, beta: float) -> None:
    """A margin of 0.3 nats per token is a chosen answer less likely by that much, and never cheaper."""
    asked = losses(SIMPO, pairs([pw], [pl], UNREAD, UNREAD), beta=beta, gamma_beta_ratio=0.3)
    behind = losses(SIMPO, pairs([pw - 0.3], [pl], UNREAD, UNREAD), beta=beta, gamma_beta_ratio=0.0)
    assert asked == pytest.approx(behind, rel=1e-9, abs=1e-12)
    assert asked >= losses(SIMPO, pairs([pw], [pl], UNREAD, UNREAD), beta=beta, gamma_beta_ratio=0.0)
