"""Which examples a step has, and a worker that makes things ahead of time and never outlives who asked for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltlm.plan.steps import PLANS_AHEAD, Order, ahead

sizes, batch_sizes, seeds = st.integers(1, 40), st.integers(1, 12), st.integers(0, 5)


def steps(examples: int, batch: int, count: int, seed: int) -> list[list[int]]:
    order = Order(examples, batch, seed)
    return [order.step(number).tolist() for number in range(count)]


@given(sizes, batch_sizes, seeds)
def test_a_pass_uses_every_example_once(examples: int, batch: int, seed: int) -> None:
    per_epoch = Order(examples, batch, seed).steps_per_epoch
    taken = steps(examples, batch, 3 * per_epoch, seed)
    for epoch in range(3):
        one_pass = taken[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(number for step in one_pass for number in step) == list(range(examples))
        assert all(len(step) == batch for step in one_pass[:-1])
        assert len(one_pass[-1]) == (examples % batch or batch)


@given(sizes, batch_sizes, st.lists(st.integers(0, 60), max_size=8), seeds)
def test_a_step_is_known_by_its_number_alone(examples: int, batch: int, numbers: list[int], seed: int) -> None:
    """Whichever was asked for before: training may go on from any, and a longer run begins as a shorter one."""
    in_turn, order = steps(examples, batch, 61, seed), Order(examples, batch, seed)
    assert [order.step(number).tolist() for number in numbers] == [in_turn[number] for number in numbers]


@given(sizes, batch_sizes, batch_sizes, seeds)
def test_the_batch_size_does_not_change_the_order(examples: int, one: int, other: int, seed: int) -> None:
    first, second = (
        [number for step in steps(examples, size, Order(examples, size, seed).steps_per_epoch, seed) for number in step]
        for size in (one, other)
    )
    assert first == second


def test_every_pass_and_every_seed_has_an_order_of_its_own() -> None:
    orders = {tuple(step) for seed in range(4) for step in steps(50, 50, 3, seed)}
    assert len(orders) == 12


def test_the_order_stays_the_same_from_version_to_version() -> None:
    assert steps(5, 3, 4, seed=1) == [[4, 0, 1], [2, 3], [1, 4, 0], [3, 2]]


@pytest.mark.parametrize(("examples", "batch", "wanted"), [(1, 16, 1), (16, 16, 1), (17, 16, 2), (48, 16, 3)])
def test_steps_per_epoch(examples: int, batch: int, wanted: int) -> None:
    assert Order(examples, batch, 0).steps_per_epoch == wanted


# Made ahead


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class Made:
    """Counts up, and knows how far it came; fails at a number, if one is given."""

    def __init__(self, count: int, failing_at: int | None = None, error: type[BaseException] = ValueError) -> None:
        self.made = 0
        self._count, self._failing_at, self._error = count, failing_at, error

    def __iter__(self) -> Iterator[int]:
        for number in range(self._count):
            if number == self._failing_at:
                raise self._error("at its place")
            self.made += 1
            yield number


def settled(made: Made) -> int:
    """How many there are when no more are made."""
    before = -1
    while made.made != before:
        before = made.made
        time.sleep(0.03)
    return made.made


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 30), st.integers(1, 5))
def test_the_same_items_in_the_same_order(count: int, most: int) -> None:
    assert list(ahead(iter(Made(count)), most)) == list(range(count))


@pytest.mark.parametrize("most", [1, 2, 5])
def test_never_more_than_so_many_are_made_ahead(most: int) -> None:
    made = Made(50)
    items = ahead(iter(made), most)
    assert made.made == 0, "nothing is made before the first is asked for"
    for taken in range(1, 8):
        next(items)
        assert settled(made) == taken + most
    items.close()
    assert made.made == 7 + most


def test_the_default_makes_some_ahead() -> None:
    made = Made(10)
    items = ahead(iter(made))
    next(items)
    assert settled(made) == 1 + PLANS_AHEAD
    items.close()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("at", [0, 1, 5])
def test_an_error_comes_where_the_item_would_have(error: type[BaseException], at: int) -> None:
    items = ahead(iter(Made(8, at, error)))
    assert [next(items) for _ in range(at)] == list(range(at))
    with pytest.raises(error, match="at its place"):
        next(items)
    with pytest.raises(StopIteration):
        next(items)


def test_closing_ends_the_worker_at_any_point() -> None:
    for taken in range(5):
        items = ahead(iter(Made(100)), 2)
        for _ in range(taken):
            next(items)
        items.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "plans"]


def test_an_error_of_who_asks_ends_the_worker() -> None:
    def consume() -> None:
        items = ahead(iter(Made(100)), 2)
        try:
            for number in items:
                if number == 3:
                    raise RuntimeError("of who asks")
        finally:
            items.close()

    with pytest.raises(RuntimeError, match="of who asks"):
        consume()


def test_an_item_that_is_none_is_an_item() -> None:
    assert list(ahead(iter([None, 1, None]))) == [None, 1, None]


def test_making_and_using_go_on_at_once() -> None:
    """The item after is being made while one is used: the worker waits for the use, and the use ends."""
    used, next_begun = threading.Event(), threading.Event()

    def slow() -> Iterator[int]:
        yield 0
        next_begun.set()
        assert used.wait(10)
        yield 1

    items = ahead(slow())
    assert next(items) == 0
    assert next_begun.wait(10)
    used.set()
    assert list(items) == [1]
