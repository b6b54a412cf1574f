from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltlm.data.ordering import batches, steps_per_epoch

sizes, batch_sizes, seeds = st.integers(1, 40), st.integers(1, 12), st.integers(0, 5)


@given(sizes, batch_sizes, seeds)
def test_a_pass_uses_every_pair_once(pairs: int, batch_pairs: int, seed: int) -> None:
    per_epoch = steps_per_epoch(pairs, batch_pairs)
    steps = list(batches(pairs, batch_pairs, 3 * per_epoch, seed))
    for epoch in range(3):
        one_pass = steps[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(index for step in one_pass for index in step) == list(range(pairs))
        assert all(len(step) == batch_pairs for step in one_pass[:-1])
        assert len(one_pass[-1]) == (pairs % batch_pairs or batch_pairs)


@given(sizes, batch_sizes, st.integers(0, 30), seeds)
def test_a_longer_run_begins_as_a_shorter_one(pairs: int, batch_pairs: int, steps: int, seed: int) -> None:
    short, long = (list(batches(pairs, batch_pairs, count, seed)) for count in (steps, steps + 7))
    assert len(short) == steps and short == long[:steps]


@given(sizes, batch_sizes, batch_sizes, seeds)
def test_the_batch_size_does_not_change_the_order(pairs: int, one: int, other: int, seed: int) -> None:
    first, second = (
        [index for step in batches(pairs, size, steps_per_epoch(pairs, size), seed) for index in step]
        for size in (one, other)
    )
    assert first == second


def test_every_pass_and_every_seed_has_an_order_of_its_own() -> None:
    orders = {tuple(step) for seed in range(4) for step in batches(50, 50, 3, seed)}
    assert len(orders) == 12


def test_the_order_stays_the_same_from_version_to_version() -> None:
    assert list(batches(5, 3, 4, seed=1)) == [[4, 0, 1], [2, 3], [1, 4, 0], [3, 2]]


@pytest.mark.parametrize(("pairs", "batch_pairs", "steps"), [(1, 16, 1), (16, 16, 1), (17, 16, 2), (48, 16, 3)])
def test_steps_per_epoch(pairs: int, batch_pairs: int, steps: int) -> None:
    assert steps_per_epoch(pairs, batch_pairs) == steps
