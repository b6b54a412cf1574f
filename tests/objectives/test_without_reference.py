"""`cpo` and `orpo` against their equations, worked by hand and by plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_pairs import AT_REFERENCE, BY_HAND, Pair, any_pair, ell, loss_of, rewards_of
from scored_examples import pairs

from tiltlm.objectives.logistic import CERTAIN, log_one_less_exp
from tiltlm.objectives.without_reference import CPO, ORPO, OrpoSettings, orpo


def test_cpo_worked_by_hand() -> None:
    """0.1 * (-10 + 30) = 2: ln(1 + e^-2) = 0.126928, and 10 nats of the chosen answer (arXiv 2401.08417)."""
    assert loss_of(CPO, BY_HAND) == pytest.approx(10.126928, abs=1e-6)
    assert loss_of(CPO, BY_HAND, nll_weight=0.5) == pytest.approx(5.126928, abs=1e-6)
    assert rewards_of(CPO, BY_HAND) == pytest.approx([-1, -3])
    assert loss_of(CPO, Pair(-7, -7, 0, 0)) == pytest.approx(math.log(2) + 7)


@given(any_pair, st.floats(0.01, 2), st.floats(0, 2))
@settings(deadline=None)
def test_cpo_as_plain_python_has_it(pair: Pair, beta: float, weight: float) -> None:
    wanted = ell(beta * (pair.chosen - pair.rejected)) - weight * pair.chosen
    assert loss_of(CPO, pair, beta=beta, nll_weight=weight) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_orpo_worked_by_hand() -> None:
    """Means -2.5 and -3: p 0.082085 and 0.049787, odds 0.089426 and 0.052396, their log-ratio 0.534617;
    2.5 + 0.1 * ln(1 + e^-0.534617) = 2.546116 (arXiv 2403.07691)."""
    assert loss_of(ORPO, BY_HAND) == pytest.approx(2.546116, abs=1e-6)
    assert rewards_of(ORPO, BY_HAND) == pytest.approx([-2.5, -3])
    assert loss_of(ORPO, AT_REFERENCE) == pytest.approx(3 + 0.1 * math.log(2))
    assert loss_of(ORPO, AT_REFERENCE, odds_weight=0.0) == 3


@given(st.floats(-9, -1e-5), st.floats(-9, -1e-5), st.floats(0, 2))
@settings(deadline=None)
def test_orpo_as_plain_python_has_it(chosen: float, rejected: float, weight: float) -> None:
    odds = [math.exp(mean) / -math.expm1(mean) for mean in (chosen, rejected)]
    wanted = -chosen + weight * math.log1p(odds[1] / odds[0])
    assert loss_of(ORPO, Pair(chosen, rejected, 0, 0), odds_weight=weight) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_near_certainty_odds_are_finite_and_still_move(dtype: torch.dtype) -> None:
    """Where log(1 - exp(a)) is -inf and its slope NaN: at 0 and just below; the rejected answer is still drawn down."""
    certain = [0.0, -1e-45, -1e-20, -1e-8, -1e-7]
    values = torch.tensor([value for one in certain for value in (one, one)], dtype=dtype, requires_grad=True)
    blank = pairs([0.0] * 5, [0.0] * 5, [0.0] * 5, [0.0] * 5)
    given_pairs = type(blank)(logps_N=values, tokens_N=blank.tokens_N, labels_N=blank.labels_N)
    losses_U = orpo(given_pairs, OrpoSettings()).losses_U
    losses_U.sum().backward()
    assert losses_U.isfinite().all()
    assert values.grad is not None and values.grad.isfinite().all()
    assert (values.grad[0::2] < 0).all() and (values.grad[1::2] > 0).all()


def test_the_tangent_meets_the_curve() -> None:
    """At CERTAIN value and slope are the curve's; log1p(-exp(a)), as peers have it, has lost three digits there."""
    a = torch.tensor([CERTAIN, CERTAIN - 1e-9, -0.5, -3.0], dtype=torch.float64, requires_grad=True)
    values = log_one_less_exp(a)
    values.sum().backward()
    exact = [math.log(-math.expm1(x)) for x in a.tolist()]
    assert values.tolist() == pytest.approx(exact, rel=1e-12)
    assert a.grad is not None
    assert a.grad.tolist() == pytest.approx([math.exp(x) / math.expm1(x) for x in a.tolist()], rel=1e-9)
    beyond = log_one_less_exp(torch.tensor([0.0], dtype=torch.float64))
    assert beyond.item() == pytest.approx(math.log(1e-6) - 1, rel=1e-6)
