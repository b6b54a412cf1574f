"""`sppo_hard` against its equation, worked by hand and by plain Python."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_pairs import AT_REFERENCE, BY_HAND, Pair, any_pair, loss_of, rewards_of

from tiltlm.objectives.sppo_hard import SPPO_HARD


def test_worked_by_hand() -> None:
    """Target 1 / 0.2 = 5: ((2 - 5)^2 + (-5 + 5)^2) / 2 = 4.5; at the reference 1 / 0.04 = 25
    (arXiv 2405.00675, eq. 4.7)."""
    assert loss_of(SPPO_HARD, BY_HAND, beta=0.1) == pytest.approx(4.5)
    assert loss_of(SPPO_HARD, AT_REFERENCE, beta=0.1) == pytest.approx(25.0)
    assert rewards_of(SPPO_HARD, BY_HAND, beta=0.1) == pytest.approx([0.2, -0.5])


@given(any_pair, st.floats(1e-3, 2))
@settings(deadline=None)
def test_it_is_half_of_trls(pair: Pair, beta: float) -> None:
    """The paper's mean over both answers of (q - (p - 1/2) / beta)^2; TRL adds the two squares."""
    trl = (pair.up - 0.5 / beta) ** 2 + (pair.down + 0.5 / beta) ** 2
    assert loss_of(SPPO_HARD, pair, beta=beta) == pytest.approx(trl / 2, rel=1e-9, abs=1e-9)
