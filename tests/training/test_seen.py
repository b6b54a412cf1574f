"""Pairs that were trained on, scored again: which ones, and what is said of them, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from test_held_out import spread
from tiny_runs import bound, examples_for, pairs

from tiltlm.config import TrainingConfig
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.objectives import OBJECTIVES
from tiltlm.plan.steps import Order
from tiltlm.statistics import clustered_mean, difference_of_means
from tiltlm.training.held_out import HeldOut, evaluate_saved
from tiltlm.training.seen import SEEN_AT_MOST, evaluate_seen, seen_examples


def known(columns: TokenColumns, reference: float = -10.0, start: float = -10.0) -> HeldOut:
    return HeldOut(
        columns, spread(columns, [reference] * columns.sequences), spread(columns, [start] * columns.sequences)
    )


def saved(columns: TokenColumns, margins: list[float]) -> np.ndarray:
    """Log-probabilities of pairs whose chosen answer gained half of these, and whose rejected answer lost as much."""
    return spread(columns, [-10 + side * margin / 2 for margin in margins for side in (1, -1)])


def test_margins_and_growth_by_hand() -> None:
    seen, held_out = known(pairs(3)), known(pairs(4, seed=1))
    own, other = [3.0, 1.0, -1.0], [0.5, 0.5, 1.0, 0.0]
    values = saved(held_out.columns, other)
    found = evaluate_seen(saved(seen.columns, own), seen, values, held_out, bound(beta=1.0))
    assert found is not None
    assert [pair.margin for pair in found.pairs] == pytest.approx(own, abs=1e-5)
    assert [pair.id for pair in found.pairs] == ["pair 0", "pair 1", "pair 2"]
    assert len({pair.prompt for pair in found.pairs}) == 3
    assert found.margin.mean == found.growth.mean == pytest.approx(1.0, abs=1e-5)
    assert found.gap.mean == pytest.approx(0.5, abs=1e-5)
    assert found.gap.interval == pytest.approx(
        difference_of_means(own, [0, 1, 2], other, [0, 1, 2, 3]).interval, abs=1.0
    )
    losses = np.log1p(np.exp(-np.array(own)))
    assert found.loss_change.mean == pytest.approx(np.mean(losses) - np.log(2), abs=1e-5)


def test_a_margin_that_was_there_before_is_no_growth() -> None:
    """The reference is another model: policy and reference differ at the start as they do at the end."""
    columns = pairs(4)
    reference, start = spread(columns, [-10.0] * 8), saved(columns, [5.0] * 4)
    seen, held_out = HeldOut(columns, reference, start), known(pairs(4, seed=1))
    found = evaluate_seen(start, seen, saved(held_out.columns, [2.0] * 4), held_out, bound(beta=1.0))
    assert found is not None
    assert found.margin.mean == pytest.approx(5.0, abs=1e-5)
    assert found.growth.mean == pytest.approx(0.0, abs=1e-5)
    assert found.gap.mean == pytest.approx(-2.0, abs=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_whatever_the_objective_the_same_examples_have_no_gap(name: str) -> None:
    objective = bound(name)
    columns = examples_for(objective.needs, 9)
    rng = np.random.default_rng(0)
    start, end = (spread(columns, rng.normal(-11, 2, columns.sequences).tolist()) for _ in range(2))
    reference = start if objective.needs.reference else None
    if objective.columns.shape:
        start, end = (np.tile(-np.abs(values)[:, None], objective.columns.shape) for values in (start, end))
    both = HeldOut(columns, reference, start)
    found = evaluate_seen(end, both, end, both, objective)
    evaluation = evaluate_saved(end, None, both, objective, "float32", 0.0)
    assert (found is None) == (evaluation.margin is None) == (objective.needs.unit not in ("pair", "list"))
    assert evaluation.loss_change is not None
    if found is not None:
        assert found.margin == evaluation.margin and found.loss_change == evaluation.loss_change
        assert found.gap.mean == pytest.approx(0.0)


def test_those_drawn_will_have_been_trained_on_and_every_one_is_as_likely() -> None:
    columns = pairs(200)
    training = TrainingConfig(batch_pairs=8, max_steps=12)
    order = Order(200, 8, 3)
    trained_on = np.concatenate([order.step(step) for step in range(12)])
    drawn = seen_examples(columns, training, 3)
    assert len(drawn) == len(set(drawn.tolist())) == SEEN_AT_MOST and set(drawn) <= set(trained_on)
    assert np.array_equal(drawn, seen_examples(columns, training, 3))
    assert set(seen_examples(pairs(5), TrainingConfig(epochs=3), 0)) == set(range(5))
    counts = np.zeros(200)
    for seed in range(200):
        counts[seen_examples(columns, TrainingConfig(batch_pairs=8), seed)] += 1
    share = SEEN_AT_MOST / 200
    assert abs(counts / 200 - share).max() < 5 * np.sqrt(share * (1 - share) / 200)


def test_the_changes_a_token_and_the_start_by_hand() -> None:
    columns = pairs(5)
    reference, start = spread(columns, [-10.0] * 10), spread(columns, [-10.5, -9.0] * 5)
    end = spread(columns, [-11.0, -13.0] * 5)
    found = evaluate_saved(end, None, HeldOut(columns, reference, start), bound(beta=1.0), "float32", 0.0)
    tokens = columns.scored_tokens
    expected = {
        "chosen_token_change": -0.5 / tokens[0::2],
        "rejected_token_change": -4.0 / tokens[1::2],
        "start_gap": np.column_stack([0.5 / tokens[0::2], 1.0 / tokens[1::2]]).ravel(),
        "start_margin": np.full(5, -1.5),
        "loss_change": np.full(5, np.log1p(np.exp(-2.0)) - np.log1p(np.exp(1.5))),
    }
    for name, values in expected.items():
        estimate = getattr(found, name)
        assert estimate.mean == pytest.approx(values.mean(), abs=1e-5), name
        assert estimate.clusters == 5
    bare = evaluate_saved(end, None, HeldOut(columns, None, start), bound("simpo"), "float32", 0.0)
    assert bare.start_gap is None and bare.start_margin is not None
    own = clustered_mean(list(-4.0 / tokens[1::2]), range(5))
    assert found.rejected_token_change is not None
    assert found.rejected_token_change.interval == pytest.approx(own.interval, abs=0.2)
