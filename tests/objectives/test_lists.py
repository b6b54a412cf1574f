"""Objectives of whole lists, worked by hand and by plain Python; of two answers Plackett and Luce's is DPO."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scored_examples import listed, losses, pairs

from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.infonca import INFONCA, NCA
from tiltlm.objectives.lipo import LIPO_LAMBDA
from tiltlm.objectives.plackett_luce import PLACKETT_LUCE
from tiltlm.objectives.pro import PRO
from tiltlm.objectives.rebel import REBEL
from tiltlm.objectives.rrhf import RRHF

ratios = st.floats(-40, 40, width=32)
lists = st.lists(st.tuples(ratios, st.integers(0, 3), st.integers(1, 5)), min_size=2, max_size=5).filter(
    lambda own: len({score for _, score, _ in own}) > 1
)
batches = st.lists(lists, min_size=1, max_size=3)
Answer = tuple[float, float, int]
"""A log-ratio, which is a log-probability too where the reference's is 0, a score, and a number of tokens."""


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def plackett_luce(own: Sequence[Answer], beta: float = 0.1) -> float:
    total = 0.0
    for ratio, score, _ in own:
        worse = sum(math.exp(beta * (other - ratio)) for other, below, _ in own if below < score)
        total += math.log1p(worse)
    return total


def lipo(own: Sequence[Answer], beta: float = 0.05) -> float:
    best_first = sorted(range(len(own)), key=lambda place: -own[place][1])
    by_reward = sorted(best_first, key=lambda place: -round(own[place][0] / 1e-3))
    discount = {place: 1 / math.log(1 + rank) for rank, place in enumerate(by_reward, start=1)}
    return sum(
        abs(2 ** own[i][1] - 2 ** own[j][1])
        * abs(discount[i] - discount[j])
        * softplus(-beta * (own[i][0] - own[j][0]))
        for i in range(len(own))
        for j in range(len(own))
        if own[i][1] > own[j][1]
    )


def rrhf(own: Sequence[Answer]) -> float:
    means = [ratio / tokens for ratio, _, tokens in own]
    ranked = sum(
        max(0.0, means[j] - means[i]) for i in range(len(own)) for j in range(len(own)) if own[i][1] > own[j][1]
    )
    return ranked - max(own, key=lambda one: one[1])[0]


def pro(own: Sequence[Answer]) -> float:
    total, best = 0.0, max(own, key=lambda one: one[1])[0]
    for ratio, score, tokens in own:
        below = [(other / count, score - lower) for other, lower, count in own if lower < score]
        if below:
            mine = ratio / tokens * max(apart for _, apart in below)
            total += math.log1p(sum(math.exp(p * apart - mine) for p, apart in below))
    return total - 0.05 * (len(own) - 1) ** 2 * best


def targets(own: Sequence[Answer]) -> list[float]:
    weights = [math.exp(score) for _, score, _ in own]
    return [weight / sum(weights) for weight in weights]


def infonca(own: Sequence[Answer], beta: float = 0.01) -> float:
    total = math.log(sum(math.exp(beta * ratio) for ratio, _, _ in own))
    return -sum(q * (beta * ratio - total) for q, (ratio, _, _) in zip(targets(own), own, strict=True))


def nca(own: Sequence[Answer], beta: float = 0.01) -> float:
    return sum(
        q * softplus(-beta * ratio) + softplus(beta * ratio) / len(own)
        for q, (ratio, _, _) in zip(targets(own), own, strict=True)
    )


def rebel(own: Sequence[Answer], beta: float = 0.1) -> float:
    apart = [(beta * (own[i][0] - own[j][0]) - (own[i][1] - own[j][1])) ** 2 for i in range(len(own)) for j in range(i)]
    return sum(apart) / len(apart)


ORACLES = {
    "plackett_luce": plackett_luce,
    "lipo_lambda": lipo,
    "rrhf": rrhf,
    "pro": pro,
    "infonca": infonca,
    "nca": nca,
    "rebel": rebel,
}


def test_every_objective_of_lists_has_an_oracle() -> None:
    """Those that read single tokens have tests of their own."""
    of_lists = {name for name, objective in OBJECTIVES.items() if objective.needs.unit == "list"}
    assert set(ORACLES) == {name for name in of_lists if not OBJECTIVES[name].needs.tokens}


@pytest.mark.parametrize("name", ORACLES)
@given(batch=batches)
def test_it_is_what_its_equation_says(name: str, batch: list[list[Answer]]) -> None:
    """In lists of different lengths, with equal scores, in any order."""
    columns = [[[one[field] for one in own] for own in batch] for field in range(3)]
    found = losses(OBJECTIVES[name], listed(columns[0], columns[1], [[int(n) for n in own] for own in columns[2]]))
    assert found == pytest.approx([ORACLES[name](own) for own in batch], rel=1e-9, abs=1e-9)


def test_plackett_luce_by_hand() -> None:
    """Rewards 2, 1, 0, ranked so: log(1 + e^-1 + e^-2) + log(1 + e^-1). All alike: ln 3!."""
    (found,) = losses(PLACKETT_LUCE, listed([[20.0, 10.0, 0.0]], [[3, 2, 1]]))
    assert found == pytest.approx(math.log(1 + math.exp(-1) + math.exp(-2)) + math.log(1 + math.exp(-1)))
    assert losses(PLACKETT_LUCE, listed([[1.0, 1.0, 1.0]], [[3, 2, 1]])) == pytest.approx([math.log(6)])
    # Two best of equal score: each against the worst, not against each other.
    (tied,) = losses(PLACKETT_LUCE, listed([[20.0, 10.0, 0.0]], [[2, 2, 1]]))
    assert tied == pytest.approx(math.log1p(math.exp(-2)) + math.log1p(math.exp(-1)))


def test_lipo_by_hand() -> None:
    """Rewards 0 and 1 of scores 1 and 0: ranks 2 and 1, gains 2 and 1, discounts 1/ln 3 and 1/ln 2."""
    (found,) = losses(LIPO_LAMBDA, listed([[0.0, 20.0]], [[1, 0]]))
    assert found == pytest.approx((1 / math.log(2) - 1 / math.log(3)) * math.log1p(math.e))


@pytest.mark.parametrize("noise", [0.0, 1e-6, -1e-6])
def test_at_the_start_rounding_does_not_rank(noise: float) -> None:
    """Log-ratios of 0 but for rounding: ranks 1 and 2 as scored, gains 2 and 1; by a thousandth of a nat, by reward."""
    (found,) = losses(LIPO_LAMBDA, listed([[0.0, noise, 3 * noise]], [[1, 0, 0.5]]))
    second, third = 1 / math.log(3), 1 / math.log(4)
    first_and_second = (2 - 2**0.5) * (1 / math.log(2) - second)
    wanted = first_and_second + (1 / math.log(2) - third) + (2**0.5 - 1) * (second - third)
    assert found == pytest.approx(math.log(2) * wanted, abs=1e-6)


def test_rrhf_by_hand() -> None:
    """Means -2 (best), -1, -3: the second is above the best by 1; the best's sum is -4."""
    given_scored = listed([[-4.0, -1.0, -6.0]], [[3, 2, 1]], [[2, 1, 2]])
    assert losses(RRHF, given_scored) == pytest.approx([1 + 4])
    assert losses(RRHF, given_scored, rank_weight=100.0) == pytest.approx([100 + 4])


def test_pro_by_hand() -> None:
    """Means -1 and -2, scores 3 and 1: temperature 1/2, so odds of e^-2 to e^-4; the best's sum -2 counts 0.05."""
    (found,) = losses(PRO, listed([[-2.0, -2.0]], [[3, 1]], [[2, 1]]))
    assert found == pytest.approx(math.log1p(math.exp(-2)) + 0.05 * 2)


def test_rebel_by_hand() -> None:
    """Rewards 2, 1, 0 of scores 1, 1, 0: the three pairs are off by 1, 1 and 0. At the tilted reference it is 0."""
    (found,) = losses(REBEL, listed([[20.0, 10.0, 0.0]], [[1, 1, 0]]))
    assert found == pytest.approx(2 / 3)
    assert losses(REBEL, listed([[17.0, 12.0, 2.0]], [[1.5, 1, 0]])) == pytest.approx([0], abs=1e-12)


def test_infonca_and_nca_by_hand() -> None:
    """Targets 3/4 and 1/4 of scores ln 3 and 0; rewards 1 and 0."""
    given_scored = listed([[100.0, 0.0]], [[math.log(3), 0.0]])
    log_sum = math.log(1 + math.e)
    assert losses(INFONCA, given_scored) == pytest.approx([-(0.75 * (1 - log_sum) - 0.25 * log_sum)])
    wanted = 0.75 * math.log1p(math.exp(-1)) + 0.25 * math.log(2) + 0.5 * math.log1p(math.e) + 0.5 * math.log(2)
    assert losses(NCA, given_scored) == pytest.approx([wanted])


@given(st.lists(st.tuples(ratios, ratios), min_size=1, max_size=4))
def test_of_two_answers_plackett_luce_is_dpo_to_the_bit(two: list[tuple[float, float]]) -> None:
    chosen, rejected = [list(side) for side in zip(*two, strict=True)]
    nothing = [0.0] * len(two)
    found = losses(PLACKETT_LUCE, listed([list(own) for own in two], [[1, 0]] * len(two)))
    assert found == losses(OBJECTIVES["sigmoid"], pairs(chosen, rejected, nothing, nothing))


@given(st.lists(st.tuples(ratios, ratios), min_size=1, max_size=4))
def test_of_two_answers_infonca_tends_to_dpo(two: list[tuple[float, float]]) -> None:
    chosen, rejected = [list(side) for side in zip(*two, strict=True)]
    nothing = [0.0] * len(two)
    found = losses(INFONCA, listed([list(own) for own in two], [[1, 0]] * len(two)), alpha=1e-6, beta=0.1)
    assert found == pytest.approx(losses(OBJECTIVES["sigmoid"], pairs(chosen, rejected, nothing, nothing)), abs=1e-9)


@pytest.mark.parametrize("name", ORACLES)
def test_a_shorter_list_beside_a_longer_one_changes_nothing(name: str) -> None:
    alone = listed([[1.0, -2.0]], [[2, 1]])
    beside = listed([[1.0, -2.0], [3.0, 0.0, -1.0, 2.0]], [[2, 1], [4, 3, 2, 1]])
    assert losses(OBJECTIVES[name], beside)[0] == pytest.approx(losses(OBJECTIVES[name], alone)[0], rel=1e-12)


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("far", [-1e4, 1e4])
def test_far_apart_within_a_list_loss_and_gradient_are_finite(name: str, far: float) -> None:
    given_scored = listed([[far, 0.0, -far], [0.0, far]], [[3, 2, 2], [1, 0]])
    output = OBJECTIVES[name].loss(given_scored, OBJECTIVES[name].settings())
    (slope,) = torch.autograd.grad(output.losses_U.sum(), [given_scored.logps_N], allow_unused=True)
    assert output.losses_U.isfinite().all() and slope is not None and slope.isfinite().all()
