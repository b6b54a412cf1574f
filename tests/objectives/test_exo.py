"""`exo_pair` against its equation, worked by hand and by plain Python."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_pairs import AT_REFERENCE, BY_HAND, Pair, any_pair, ell, loss_of, rewards_of, sigma

from tiltlm.objectives.exo import EXO_PAIR, ExoPairSettings


def test_worked_by_hand() -> None:
    """q = 1/(1+e^-0.7) = 0.668188; e 0.1: 0.668188 ln(0.668188/0.9) + 0.331812 ln(0.331812/0.1) = 0.198972
    (arXiv 2402.00856, eq. 16)."""
    assert loss_of(EXO_PAIR, BY_HAND, label_smoothing=0.1) == pytest.approx(0.198972, abs=1e-6)
    assert rewards_of(EXO_PAIR, BY_HAND) == pytest.approx([0.2, -0.5])


def test_at_the_reference_and_at_rest() -> None:
    """-ln 2 - ln(0.001 * 0.999) / 2; and 0 where the odds are the label's, growing again beyond."""
    assert loss_of(EXO_PAIR, AT_REFERENCE) == pytest.approx(-math.log(2) - math.log(1e-3 * 0.999) / 2)
    rest = math.log(0.999 / 0.001) / 0.1
    losses = [loss_of(EXO_PAIR, Pair(0, -margin, 0, 0)) for margin in (rest - 1, rest, rest + 1)]
    assert losses[1] == pytest.approx(0, abs=1e-12)
    assert losses[0] > losses[1] < losses[2]


@given(any_pair, st.floats(0.01, 2), st.floats(1e-4, 0.49))
@settings(deadline=None)
def test_as_plain_python_has_it(pair: Pair, beta: float, e: float) -> None:
    x = beta * pair.h
    wanted = sigma(x) * (-ell(x) - math.log1p(-e)) + sigma(-x) * (-ell(-x) - math.log(e))
    assert loss_of(EXO_PAIR, pair, beta=beta, label_smoothing=e) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_a_label_without_doubt_is_refused() -> None:
    for wrong in (0.0, 0.5):
        with pytest.raises(ValueError, match="label_smoothing"):
            ExoPairSettings(label_smoothing=wrong)
