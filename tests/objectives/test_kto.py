"""`kto` against its equations, worked by hand and by plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_examples import Completion, losses, random_examples, scored

from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED, Scored
from tiltlm.objectives.kto import KTO, KtoSettings, kto

ratios = st.floats(-100, 100)


def batch(desirable: Sequence[float], undesirable: Sequence[float], mismatched: Sequence[float]) -> Scored:
    """Completions of the given log-ratios, each followed by a mismatched one."""

    def one(label: int, ratio: float) -> Completion:
        reference = torch.tensor([-50.0], dtype=torch.float64)
        return Completion(label, reference + ratio, reference)

    labelled = [one(CHOSEN, q) for q in desirable] + [one(REJECTED, q) for q in undesirable]
    others = [one(MISMATCHED, q) for q in mismatched]
    return scored(list(zip(labelled, others, strict=True)), KTO.needs)


def test_worked_by_hand() -> None:
    """z = (3 - 1) / 2 = 1; 1 - 1/(1+e^-0.2) = 0.450166 of q = 3; 1 - 1/(1+e^-(0.3)) = 0.425557 of q = -2
    (arXiv 2402.01306, eq. 8)."""
    output = kto(batch([3], [-2], [3, -1]), KtoSettings(beta=0.1))
    assert output.losses_U.tolist() == pytest.approx([0.450166, 0.425557], abs=1e-6)
    assert output.rewards_N.tolist() == pytest.approx([0.3, 0.3, -0.2, -0.1])


def test_weights_are_the_labels() -> None:
    plain = losses(KTO, batch([3], [-2], [3, -1]))
    weighted = losses(KTO, batch([3], [-2], [3, -1]), desirable_weight=1.5, undesirable_weight=0.7)
    assert weighted == pytest.approx([1.5 * plain[0], 0.7 * plain[1]], rel=1e-15)


def test_the_first_loss_is_half_the_weight() -> None:
    same = scored(random_examples(KTO.needs, 6, same=True), KTO.needs)
    assert set(losses(KTO, same, desirable_weight=1.3, undesirable_weight=0.8)) == {0.65, 0.4}


def test_a_policy_below_its_reference_is_taken_to_be_at_it() -> None:
    """A negative mean is cut at 0, after the mean: (-5 + 1) / 2 is 0, not 1/2."""
    assert losses(KTO, batch([1], [1], [-5, 1])) == losses(KTO, batch([1], [1], [0, 0]))


def test_one_mismatched_answer_moves_all_losses_and_gets_no_gradient() -> None:
    near, far = batch([1, 2], [0], [0, 0, 0]), batch([1, 2], [0], [0, 9, 0])
    assert all(a != b for a, b in zip(losses(KTO, near), losses(KTO, far), strict=True))
    far.logps_N.requires_grad_()
    kto(far, KtoSettings()).losses_U.sum().backward()
    assert far.logps_N.grad is not None
    assert far.logps_N.grad.ne(0).tolist() == [True, False] * 3


def test_beta_stands_outside_the_level() -> None:
    """q and z both 4: the loss is a half whatever beta is."""
    for beta in (0.1, 3.0):
        assert losses(KTO, batch([4], [4], [4, 4]), beta=beta) == [0.5, 0.5]


def test_a_small_regret_keeps_its_digits() -> None:
    """1 - sigmoid(60) is e^-60, not 0: a subtraction would have lost it."""
    assert losses(KTO, batch([600], [0], [0, 0]))[0] == pytest.approx(math.exp(-60), rel=1e-12)


@given(st.lists(st.tuples(st.booleans(), ratios, ratios), min_size=1, max_size=6), st.floats(0.01, 2), st.floats(0, 3))
@settings(deadline=None)
def test_as_plain_python_has_it(examples: list[tuple[bool, float, float]], beta: float, weight: float) -> None:
    good = [(q, other) for is_good, q, other in examples if is_good]
    bad = [(q, other) for is_good, q, other in examples if not is_good]
    z = max(0.0, sum(other for _, _, other in examples) / len(examples))

    def regret(x: float) -> float:
        return 1 / (1 + math.exp(x)) if x > 0 else 1 - 1 / (1 + math.exp(-x))

    expected = [weight * regret(beta * (q - z)) for q, _ in good] + [regret(beta * (z - q)) for q, _ in bad]
    given_batch = batch([q for q, _ in good], [q for q, _ in bad], [other for _, other in good + bad])
    assert losses(KTO, given_batch, beta=beta, desirable_weight=weight) == pytest.approx(expected, rel=1e-9, abs=1e-12)
