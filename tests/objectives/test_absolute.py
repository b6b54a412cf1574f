"""`nca_pair` and `bco_pair` against their equations, worked by hand and by plain Python."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_pairs import AT_REFERENCE, BY_HAND, Pair, any_pair, ell, loss_of, rewards_of

from tiltlm.objectives.absolute import BCO_PAIR, NCA_PAIR

betas = st.floats(0.01, 2)


def test_nca_worked_by_hand() -> None:
    """Rewards 0.2 and -0.5: 0.598139 + 0.798139 / 2 + 0.474077 / 2 = 1.234247 (arXiv 2402.05369)."""
    assert loss_of(NCA_PAIR, BY_HAND, beta=0.1) == pytest.approx(1.234247, abs=1e-6)
    assert rewards_of(NCA_PAIR, BY_HAND) == pytest.approx([0.02, -0.05])
    assert loss_of(NCA_PAIR, AT_REFERENCE) == pytest.approx(2 * math.log(2))


def test_ncas_chosen_reward_settles_at_ln_2() -> None:
    losses = [loss_of(NCA_PAIR, Pair(r, 0, 0, 0), beta=1.0) for r in (math.log(2) + step for step in (-1e-3, 0, 1e-3))]
    assert losses[0] > losses[1] < losses[2]


def test_nca_is_no_function_of_the_margin_alone() -> None:
    sunk = Pair(BY_HAND.chosen - 50, BY_HAND.rejected - 50, BY_HAND.reference_chosen, BY_HAND.reference_rejected)
    assert sunk.h == BY_HAND.h
    assert loss_of(NCA_PAIR, sunk) > loss_of(NCA_PAIR, BY_HAND)


@given(any_pair, betas)
@settings(deadline=None)
def test_nca_as_plain_python_has_it(pair: Pair, beta: float) -> None:
    up, down = beta * pair.up, beta * pair.down
    wanted = ell(up) + ell(-up) / 2 + ell(-down) / 2
    assert loss_of(NCA_PAIR, pair, beta=beta) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_bco_worked_by_hand() -> None:
    """Rewards 0.2 and -0.5: 0.598139 + 0.474077 = 1.072216."""
    assert loss_of(BCO_PAIR, BY_HAND, beta=0.1) == pytest.approx(1.072216, abs=1e-6)
    assert rewards_of(BCO_PAIR, BY_HAND, beta=0.1) == pytest.approx([0.2, -0.5])
    assert loss_of(BCO_PAIR, AT_REFERENCE) == pytest.approx(2 * math.log(2))


@given(any_pair, betas)
@settings(deadline=None)
def test_bco_as_plain_python_has_it(pair: Pair, beta: float) -> None:
    wanted = ell(beta * pair.up) + ell(-beta * pair.down)
    assert loss_of(BCO_PAIR, pair, beta=beta) == pytest.approx(wanted, rel=1e-9, abs=1e-12)
