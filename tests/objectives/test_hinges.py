"""`hinge` and `slic` against their equations, worked by hand and by plain Python."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_pairs import AT_REFERENCE, BY_HAND, Pair, any_pair, loss_of, rewards_of

from tiltlm.objectives.hinges import HINGE, SLIC


def test_hinge_worked_by_hand() -> None:
    """1 - 0.05 * 7 = 0.65; done at 20 nats; 1 where policy and reference agree (arXiv 2309.06657)."""
    assert loss_of(HINGE, BY_HAND) == pytest.approx(0.65)
    assert loss_of(HINGE, Pair(0, -20, 0, 0)) == 0
    assert loss_of(HINGE, AT_REFERENCE) == 1
    assert rewards_of(HINGE, BY_HAND) == pytest.approx([0.1, -0.25])


@given(any_pair, st.floats(0.01, 2))
@settings(deadline=None)
def test_hinge_as_plain_python_has_it(pair: Pair, beta: float) -> None:
    found = loss_of(HINGE, pair, beta=beta)
    assert found == pytest.approx(max(0.0, 1 - beta * pair.h), rel=1e-9, abs=1e-9)


def test_slic_worked_by_hand() -> None:
    """-10 against -30 has its margin: imitation alone, 10. Swapped: 1 + 20 + 30 (arXiv 2305.10425)."""
    assert loss_of(SLIC, BY_HAND) == pytest.approx(10.0)
    assert loss_of(SLIC, Pair(-30, -10, 0, 0)) == pytest.approx(51.0)
    assert loss_of(SLIC, Pair(-7, -7, 0, 0), delta=0.5, nll_weight=0.1) == pytest.approx(0.5 + 0.7)
    assert rewards_of(SLIC, BY_HAND) == [-10, -30]


@given(any_pair, st.floats(0.01, 5), st.floats(0, 2))
@settings(deadline=None)
def test_slic_as_plain_python_has_it(pair: Pair, delta: float, weight: float) -> None:
    wanted = max(0.0, delta - pair.chosen + pair.rejected) - weight * pair.chosen
    assert loss_of(SLIC, pair, delta=delta, nll_weight=weight) == pytest.approx(wanted, rel=1e-9, abs=1e-9)
