"""Examples shared out over ranks: every one once, evenly, and in as many micro-batches on each rank."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import examples_for

from tiltlm.objectives.interface import Needs
from tiltlm.plan.dealing import dealt, plan_of_rank
from tiltlm.plan.packing import plan
from tiltlm.plan.row_layout import BLOCKS, DENSE, SEQUENCES

LAYOUTS = {"dense": DENSE, "blocks": BLOCKS, "sequences": SEQUENCES}


@given(costs=st.lists(st.integers(0, 100), max_size=40), ranks=st.integers(1, 9))
def test_every_task_is_dealt_once(costs: list[int], ranks: int) -> None:
    parts = dealt(costs, ranks)
    assert len(parts) == ranks
    assert sorted(itertools.chain(*parts)) == list(range(len(costs)))


@settings(deadline=None)
@given(costs=st.lists(st.integers(1, 50), min_size=1, max_size=7), ranks=st.integers(1, 3))
def test_no_rank_has_more_than_four_thirds_of_what_is_best(costs: list[int], ranks: int) -> None:
    """Against all ways to share out (Graham 1969)."""

    def most(of: tuple[int, ...]) -> int:
        return max(sum(cost for cost, rank in zip(costs, of, strict=True) if rank == one) for one in range(ranks))

    best = min(map(most, itertools.product(range(ranks), repeat=len(costs))))
    found = max(sum(costs[task] for task in own) for own in dealt(costs, ranks))
    assert found <= best * (4 / 3 - 1 / (3 * ranks)) + 1e-9


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(1, 12),
    ranks=st.integers(2, 5),
    budget=st.sampled_from([1, 40, 100, 4096]),
    layout=st.sampled_from(sorted(LAYOUTS)),
    mismatched=st.booleans(),
)
def test_ranks_compute_every_example_once_and_in_step(
    count: int, ranks: int, budget: int, layout: str, mismatched: bool
) -> None:
    needs = Needs(unit="completion", mismatched=True) if mismatched else Needs()
    columns, own = examples_for(needs, count, seed=count), LAYOUTS[layout]
    reference = np.arange(int(columns.scored_starts[-1]), dtype=np.float32)
    numbers = np.random.default_rng(0).permutation(count)
    parts = [plan_of_rank(columns, numbers, budget, own, reference, rank, ranks) for rank in range(ranks)]
    alone = plan(columns, numbers, budget, own, reference)
    assert len({len(part.micro_batches) for part in parts}) == 1
    computed = [batch for part in parts for batch in part.counted]
    assert sorted(np.concatenate([batch.examples for batch in computed])) == list(range(count))
    assert sum(part.laid_out for part in parts) == sum(batch.laid_out for batch in computed)
    for part in parts:
        assert (part.examples, part.completions, part.tokens) == (alone.examples, alone.completions, alone.tokens)
        assert 0 < part.busy <= 1
        assert all(batch.laid_out == 0 for batch in part.micro_batches if batch.filler)
    for batch in computed:
        assert batch.reference_S is not None
        assert np.array_equal(reference[batch.places], batch.reference_S.numpy())


def test_one_rank_has_what_a_plan_of_its_own_has() -> None:
    columns = examples_for(Needs(), 9)
    found = plan_of_rank(columns, np.arange(9), 60, DENSE, None, 0, 1)
    wanted = plan(columns, np.arange(9), 60, DENSE)
    for one, other in zip(found.micro_batches, wanted.micro_batches, strict=True):
        assert np.array_equal(one.examples, other.examples)
        assert np.array_equal(one.tokens_RL, other.tokens_RL)


@pytest.mark.parametrize("ranks", [2, 4])
def test_how_busy_ranks_are_is_told(ranks: int) -> None:
    columns = examples_for(Needs(), 1)
    assert plan_of_rank(columns, np.arange(1), 60, DENSE, None, 0, ranks).busy == pytest.approx(1 / ranks)
