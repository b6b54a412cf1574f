"""`apo_zero` and `apo_down` against their equations, worked by hand and by plain Python."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_pairs import AT_REFERENCE, BY_HAND, Pair, any_pair, loss_of, rewards_of, sigma
from scored_examples import pairs

from tiltlm.objectives.apo import APO_DOWN, APO_ZERO, ApoSettings, apo_down, apo_zero

betas = st.floats(0.01, 2)


def test_worked_by_hand() -> None:
    """sigmoid(0.2) = 0.549834, sigmoid(-0.5) = 0.377541, sigmoid(0.7) = 0.668188 (arXiv 2408.06266, eqs. 7 and 8)."""
    assert loss_of(APO_ZERO, BY_HAND) == pytest.approx(1 - 0.549834 + 0.377541, abs=1e-6)
    assert loss_of(APO_DOWN, BY_HAND) == pytest.approx(0.549834 + 1 - 0.668188, abs=1e-6)
    for objective in (APO_ZERO, APO_DOWN):
        assert loss_of(objective, AT_REFERENCE) == 1
        assert rewards_of(objective, BY_HAND) == pytest.approx([0.2, -0.5])


@given(any_pair, betas)
@settings(deadline=None)
def test_as_plain_python_has_it(pair: Pair, beta: float) -> None:
    up, down = beta * pair.up, beta * pair.down
    assert loss_of(APO_ZERO, pair, beta=beta) == pytest.approx(sigma(-up) + sigma(down), rel=1e-9, abs=1e-12)
    assert loss_of(APO_DOWN, pair, beta=beta) == pytest.approx(sigma(up) + sigma(down - up), rel=1e-9, abs=1e-12)


def test_zero_raises_the_chosen_answer_and_down_lowers_it() -> None:
    """Once the rejected answer is far enough below; both lower the rejected one."""
    slopes = []
    for loss in (apo_zero, apo_down):
        given_pair = pairs([1.0], [-20.0], [0.0], [0.0])
        given_pair.logps_N.requires_grad_()
        (slope,) = torch.autograd.grad(loss(given_pair, ApoSettings()).losses_U.sum(), given_pair.logps_N)
        slopes.append(slope.tolist())
    (zero_chosen, zero_rejected), (down_chosen, down_rejected) = slopes
    assert zero_chosen < 0 < zero_rejected
    assert down_chosen > 0 and down_rejected > 0
