"""Credit by token, held to slow reckonings, and that an answer's score says nothing of its own values."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import examples_for

from tiltlm.data.tokens.grouping import prompt_groups
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.objectives import OBJECTIVES
from tiltlm.training.credit import FOLDS, PENALTIES, TRACE, credit, sums_from_second, values_of_states

NEEDS = OBJECTIVES["pcl"].needs


def columns_of(count: int, seed: int = 0) -> TokenColumns:
    return replace(examples_for(NEEDS, count, seed), credit=None)


@given(st.integers(1, 6), st.integers(0, 1000))
def test_credit_is_the_sum_of_later_surprises(count: int, seed: int) -> None:
    columns = columns_of(count, seed)
    values = np.random.default_rng(seed).normal(size=int(columns.scored_starts[-1]))
    found = credit(values, columns)
    for number in range(columns.sequences):
        own = slice(columns.scored_starts[number], columns.scored_starts[number + 1])
        path = [*values[own], float(columns.scores[number])]
        surprises = [after - before for before, after in itertools.pairwise(path)]
        for place, one in enumerate(found[own]):
            later = sum(TRACE**step * surprise for step, surprise in enumerate(surprises[place:]))
            assert one == pytest.approx(later, abs=1e-5)


def test_what_is_known_at_once_is_the_first_tokens_credit_and_of_a_sure_thing_nobodys() -> None:
    columns = columns_of(4)
    sure = np.repeat(columns.scores.astype(np.float64), columns.scored_tokens)
    assert not credit(sure, columns).any()


def features_of(columns: TokenColumns, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(int(columns.scored_starts[-1]), width)).astype(np.float32)


def test_values_are_those_of_ridge_regression_on_other_prompts() -> None:
    """Each fold by a regression that is written out, at the penalty that foretells best."""
    columns, width = columns_of(40), 5
    features = features_of(columns, width)
    counts = columns.scored_tokens
    scores = np.repeat(columns.scores.astype(np.float64), counts)
    prompts = np.repeat(np.repeat(prompt_groups(columns), np.diff(columns.members)), counts)
    standard = (features - features.mean(0, dtype=np.float64)) / features.std(0, dtype=np.float64)
    target = scores - scores.mean()

    def of(penalty: float) -> np.ndarray:
        values = np.empty(len(target))
        for fold in range(FOLDS):
            own = prompts % FOLDS == fold
            others = standard[~own]
            root = np.sqrt(penalty * len(target)) * np.eye(width)
            weights, *_ = np.linalg.lstsq(
                np.vstack([others, root]), np.concatenate([target[~own], np.zeros(width)]), rcond=None
            )
            values[own] = standard[own] @ weights
        return values

    tried = [of(penalty) for penalty in PENALTIES]
    wanted = min(tried, key=lambda values: float(np.square(target - values).mean()))
    found, regression = values_of_states(features, columns)
    np.testing.assert_allclose(found, wanted + scores.mean(), atol=1e-9)
    error = np.square(target - wanted).mean() / np.square(target).mean()
    assert regression.explained == pytest.approx(1 - error, abs=1e-9)
    assert regression(features).shape == found.shape


def test_a_score_says_nothing_of_its_own_prompts_values() -> None:
    """As long as the same penalty is taken and the mean over states stays, which is all that it has of them."""
    columns = columns_of(40)
    features = features_of(columns, 3)
    before, _ = values_of_states(features, columns)
    first, second = int(columns.members[7]), int(columns.members[7]) + 1
    turned = columns.scores.astype(np.float64)
    turned[first] += 0.01 * columns.scored_tokens[second]
    turned[second] -= 0.01 * columns.scored_tokens[first]
    after, _ = values_of_states(features, replace(columns, scores=turned))
    moved = np.abs(after - before)
    own = slice(columns.scored_starts[first], columns.scored_starts[columns.members[8]])
    assert moved[own].max() < 1e-9
    assert moved.max() > 1e-6


def test_scores_that_states_foretell_are_found_and_noise_is_not() -> None:
    columns = columns_of(400, seed=3)
    features = features_of(columns, 4)
    told = np.random.default_rng(2).normal(size=columns.sequences).astype(np.float32)
    features[:, 0] = np.repeat(told, columns.scored_tokens)
    assert values_of_states(features, replace(columns, scores=told))[1].explained > 0.9
    noise = np.random.default_rng(1).normal(size=columns.sequences).astype(np.float32)
    assert values_of_states(features, replace(columns, scores=noise))[1].explained < 0.02


def test_features_that_never_vary_and_scores_that_do_not_are_taken() -> None:
    columns = columns_of(20)
    features = features_of(columns, 3)
    features[:, 1] = 7.0
    assert np.isfinite(values_of_states(features, columns)[0]).all()
    values, regression = values_of_states(features, replace(columns, scores=np.ones_like(columns.scores)))
    assert regression.explained == 0
    np.testing.assert_allclose(values, 1.0)


def test_one_prompt_is_refused() -> None:
    columns = columns_of(1)
    with pytest.raises(ValueError, match="two prompts"):
        values_of_states(features_of(columns, 2), columns)


def test_sums_begin_with_the_second_state() -> None:
    columns = columns_of(5)
    states = features_of(columns, 2)
    found = sums_from_second(states, columns)
    for start, end in zip(columns.scored_starts[:-1], columns.scored_starts[1:], strict=True):
        for place in range(start, end):
            np.testing.assert_allclose(found[place], states[start + 1 : place + 1].sum(0), atol=1e-5)


def test_credit_goes_along_when_examples_are_taken_and_joined() -> None:
    columns = examples_for(NEEDS, 6)
    assert columns.credit is not None
    taken = columns.take([4, 1])
    assert taken.credit is not None
    for place, number in enumerate((4, 1)):
        theirs = slice(*columns.scored_starts[[columns.members[number], columns.members[number + 1]]])
        own = slice(*taken.scored_starts[[taken.members[place], taken.members[place + 1]]])
        np.testing.assert_array_equal(taken.credit[own], columns.credit[theirs])
    both = TokenColumns.joined([taken, columns])
    np.testing.assert_array_equal(both.credit, np.concatenate([taken.credit, columns.credit]))
    assert TokenColumns.joined([taken, columns_of(2)]).credit is None
