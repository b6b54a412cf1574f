"""`ipo` against its equation, worked by hand and by plain Python."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_examples import losses, pairs

from tiltlm.objectives.ipo import IPO, IpoSettings, ipo

logps = st.floats(-200, 0)
lengths = st.integers(1, 50)


def test_worked_by_hand() -> None:
    """Per token: 2/4 - (-5)/10 = 1; target 1/(2*0.1) = 5; (1 - 5)^2 = 16 (arXiv 2310.12036, eq. 17)."""
    output = ipo(pairs([-10], [-30], [-12], [-25], tokens=(4, 10)), IpoSettings(beta=0.1))
    assert output.losses_U.tolist() == pytest.approx([16.0])
    assert output.rewards_N.tolist() == pytest.approx([0.2, -0.5])


def test_the_first_loss_is_the_square_of_the_target() -> None:
    """Policy equals reference: 1 / (4 beta^2)."""
    same = pairs([-3.0, -50.0], [-4.0, -1.0], [-3.0, -50.0], [-4.0, -1.0], tokens=(3, 5))
    assert losses(IPO, same, beta=0.5) == pytest.approx([1.0, 1.0])


def test_at_the_target_nothing_is_left_to_learn() -> None:
    """A margin of 1/(2 beta) per token: loss and gradient are zero."""
    reached = pairs([-1.0], [-4.0], [-3.0], [-1.0], tokens=(4, 2))
    reached.logps_N.requires_grad_()
    loss = ipo(reached, IpoSettings(beta=1 / (2 * (2 / 4 + 3 / 2)))).losses_U.sum()
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-15)
    assert reached.logps_N.grad is not None
    assert reached.logps_N.grad.tolist() == pytest.approx([0.0, 0.0], abs=1e-15)


@given(logps, logps, logps, logps, lengths, lengths, st.floats(0.01, 2))
@settings(deadline=None)
def test_as_plain_python_has_it(pw: float, pl: float, rw: float, rl: float, nw: int, nl: int, beta: float) -> None:
    expected = ((pw - rw) / nw - (pl - rl) / nl - 1 / (2 * beta)) ** 2
    found = losses(IPO, pairs([pw], [pl], [rw], [rl], tokens=(nw, nl)), beta=beta)
    assert found == pytest.approx([expected], rel=1e-9, abs=1e-12)
