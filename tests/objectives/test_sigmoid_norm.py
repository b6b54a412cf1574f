"""`sigmoid_norm` against its equation, worked by hand and by plain Python."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_pairs import AT_REFERENCE, BY_HAND, Pair, any_pair, ell, loss_of, rewards_of

from tiltlm.objectives.dpo import SIGMOID, SIGMOID_NORM


def test_worked_by_hand() -> None:
    """2 / 4 - (-5) / 10 = 1; 5 * 1 = 5; ln(1 + e^-5) = 0.006715 (arXiv 2411.15124)."""
    assert loss_of(SIGMOID_NORM, BY_HAND) == pytest.approx(0.006715, abs=1e-6)
    assert rewards_of(SIGMOID_NORM, BY_HAND) == pytest.approx([2.5, -2.5])
    assert loss_of(SIGMOID_NORM, AT_REFERENCE) == pytest.approx(math.log(2))


@given(any_pair, st.floats(0.01, 10))
@settings(deadline=None)
def test_as_plain_python_has_it(pair: Pair, beta: float) -> None:
    x = beta * (pair.up / pair.tokens[0] - pair.down / pair.tokens[1])
    assert loss_of(SIGMOID_NORM, pair, beta=beta) == pytest.approx(ell(x), rel=1e-9, abs=1e-12)


def test_for_answers_of_one_token_it_is_dpo() -> None:
    pair = Pair(-3, -4, -5, -2)
    assert loss_of(SIGMOID_NORM, pair, beta=0.3) == loss_of(SIGMOID, pair, beta=0.3)
