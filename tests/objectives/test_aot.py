"""`aot` and `aot_unpaired` against their equations, worked by hand and by plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_pairs import Pair, any_pair, ell
from scored_examples import losses, pairs

from tiltlm.objectives.aot import AOT, AOT_UNPAIRED
from tiltlm.objectives.dpo import SIGMOID
from tiltlm.objectives.interface import Objective, Scored


def batch(given_pairs: Sequence[Pair]) -> Scored:
    columns = zip(*((p.chosen, p.rejected, p.reference_chosen, p.reference_rejected) for p in given_pairs), strict=True)
    return pairs(*columns)


def test_paired_worked_by_hand() -> None:
    """Margins of the policy 20, 1 and of the reference 13, 30: sorted 1, 20 against 13, 30. The first pair has rank 2:
    0.1 * (20 - 30) = -1, ln(1 + e) = 1.313262; the second 0.1 * (1 - 13) = -1.2, 1.463282 (arXiv 2406.05882)."""
    found = losses(AOT, batch([Pair(-10, -30, -12, -25), Pair(-5, -6, -1, -31)]), beta=0.1)
    assert found == pytest.approx([1.313262, 1.463282], abs=1e-6)


def test_unpaired_worked_by_hand() -> None:
    """Log-ratios w 2, -4 and l -5, 25: sorted -4, 2 against -5, 25. The first pair's chosen answer has rank 2:
    0.1 * (2 - 25) = -2.3, 2.395545; the second 0.1 * (-4 + 5) = 0.1, 0.644397."""
    found = losses(AOT_UNPAIRED, batch([Pair(-10, -30, -12, -25), Pair(-5, -6, -1, -31)]), beta=0.1)
    assert found == pytest.approx([2.395545, 0.644397], abs=1e-6)


@pytest.mark.parametrize("objective", [AOT, AOT_UNPAIRED], ids=lambda objective: objective.name)
@given(st.lists(any_pair, min_size=1, max_size=6), st.floats(0.01, 1))
@settings(deadline=None)
def test_as_plain_python_has_it(objective: Objective, given_pairs: list[Pair], beta: float) -> None:
    """The batch's losses, whichever pair each is of."""
    if objective is AOT:
        uppers = sorted(pair.chosen - pair.rejected for pair in given_pairs)
        lowers = sorted(pair.reference_chosen - pair.reference_rejected for pair in given_pairs)
    else:
        uppers, lowers = sorted(pair.up for pair in given_pairs), sorted(pair.down for pair in given_pairs)
    wanted = sorted(ell(beta * (upper - lower)) for upper, lower in zip(uppers, lowers, strict=True))
    found = sorted(losses(objective, batch(given_pairs), beta=beta))
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("objective", [AOT, AOT_UNPAIRED], ids=lambda objective: objective.name)
def test_ties_and_a_batch_of_one(objective: Objective) -> None:
    """Equal pairs have equal losses; one pair alone is DPO's; and at the reference it is ln 2."""
    pair = Pair(-10, -30, -12, -25)
    assert losses(objective, batch([pair] * 3)) == pytest.approx(losses(SIGMOID, batch([pair] * 3), beta=0.01))
    same = [Pair(-6, -9, -6, -9), Pair(-7, -7, -7, -7), Pair(-6, -9, -6, -9)]
    assert losses(objective, batch(same)) == pytest.approx([math.log(2)] * 3)
