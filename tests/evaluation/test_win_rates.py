"""Win rates, against counting by hand and by loops, and by what must not change them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltlm.evaluation.win_rates import MOST_COMPARED, Scored, comparisons, win_rate
from tiltlm.statistics import mean_share

# Few values, so that there are ties.
rewards = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=6)
prompts = st.lists(st.tuples(rewards, rewards), min_size=1, max_size=12)


def counted(old: list[float], new: list[float]) -> float:
    """One prompt's share of wins, comparison by comparison."""
    won = [1.0 if one > other else 0.5 if one == other else 0.0 for other, one in product(old, new)]
    return sum(won) / len(won)


def test_every_answer_meets_every_other_and_a_tie_is_half() -> None:
    assert win_rate([[0.0, 0.5]], [[1.0, 0.5]]).mean == 3.5 / 4
    # Of these, only the pairs in one place would be two wins.
    assert win_rate([[0.0, 5.0]], [[1.0, 6.0]]).mean == 3 / 4
    assert win_rate([[0.0]], [[0.0, 1.0, -1.0, -1.0]]).mean == 1.5 / 4


def test_prompts_weigh_alike_however_many_answers_they_have() -> None:
    assert win_rate([[0.0] * 50, [0.0]], [[1.0] * 50, [-1.0]]).mean == 0.5


@given(prompts)
def test_ranks_count_what_loops_count(given_prompts: list[tuple[list[float], list[float]]]) -> None:
    olds, news = zip(*given_prompts, strict=True)
    shares = [counted(old, new) for old, new in given_prompts]
    found = win_rate(olds, news)
    assert found == mean_share(shares)
    assert found.mean == pytest.approx(sum(shares) / len(shares))


@given(prompts)
def test_exchanging_the_models_mirrors_the_rate_and_its_interval(
    given_prompts: list[tuple[list[float], list[float]]],
) -> None:
    olds, news = zip(*given_prompts, strict=True)
    there, back = win_rate(olds, news), win_rate(news, olds)
    assert back.mean == pytest.approx(1 - there.mean)
    assert (there.interval is None) == (back.interval is None) == (len(olds) == 1)
    if there.interval is not None and back.interval is not None:
        assert back.interval == pytest.approx((1 - there.interval[1], 1 - there.interval[0]))
        assert 0 <= there.interval[0] <= there.mean + 1e-12 and there.mean <= there.interval[1] + 1e-12 <= 1 + 2e-12


@given(prompts, st.integers(2, 4))
def test_repeating_answers_makes_nothing_more_certain(
    given_prompts: list[tuple[list[float], list[float]]], times: int
) -> None:
    olds, news = zip(*given_prompts, strict=True)
    once, often = win_rate(olds, news), win_rate([old * times for old in olds], [new * times for new in news])
    assert often.mean == pytest.approx(once.mean)
    assert (often.interval or 0) == pytest.approx(once.interval or 0)


@given(prompts)
def test_the_comparisons_are_the_same_ones(given_prompts: list[tuple[list[float], list[float]]]) -> None:
    olds, news = (
        [Scored(side, [2 * value for value in side]) for side in sides] for sides in zip(*given_prompts, strict=True)
    )
    found = comparisons(olds, news)
    for number, (old, new) in enumerate(given_prompts):
        own = found.prompts == number
        assert own.sum() == len(old) * len(new)
        assert found.wins[own].mean() == pytest.approx(counted(old, new))
        # Lengths here are rewards twice over: they belong to the answers that they came with.
        assert ((found.longer[own] > 0) == (found.wins[own] == 1)).all()


@pytest.mark.parametrize(("olds", "news"), [(200, 200), (200, 70), (3, 500), (65, 2)])
def test_of_many_samples_each_meets_as_many(olds: int, news: int) -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=olds), rng.normal(0.5, 1, news)
    found = comparisons(
        [Scored(old.tolist(), list(range(olds)))], [Scored(new.tolist(), [1000.0 * n for n in range(news)])]
    )
    second, first = np.divmod(found.longer + olds, 1000)
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    assert len(pairs) == len(found.wins) <= max(olds, news) * MOST_COMPARED
    for places, sides in ((first, olds), (second, news)):
        often = np.unique(places, return_counts=True)[1]
        assert len(often) == sides and often.max() - often.min() <= MOST_COMPARED
    assert found.wins.mean() == pytest.approx(win_rate([old.tolist()], [new.tolist()]).mean, abs=0.02)


def test_without_answers_there_is_nothing_to_compare() -> None:
    for refused in (lambda: win_rate([[1.0]], [[]]), lambda: comparisons([Scored([], [])], [Scored([1.0], [1.0])])):
        with pytest.raises(ValueError, match="no comparisons"):
            refused()
    with pytest.raises(ValueError, match="nothing to compare"):
        comparisons([], [])
    with pytest.raises(ValueError, match="not defined"):
        win_rate([], [])
