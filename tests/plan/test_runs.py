"""Runs of packed rows, against what the definition of `subtree_end` says column by column."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import family
from tiny_runs import packed

from tiltlm.plan.runs import LONGEST_MULTIPLE, Runs, runs_of


def row_of(depths: list[int]) -> np.ndarray:
    """The subtree ends of a trie written depth-first, of which each column's depth is given."""
    ends = []
    for column, depth in enumerate(depths):
        after = [other for other in range(column + 1, len(depths)) if depths[other] <= depth]
        ends.append(after[0] if after else len(depths))
    return np.array(ends)


@st.composite
def tries(draw: st.DrawFn) -> np.ndarray:
    """Subtree ends of a row: several trees, with branches that branch again."""
    depths = [0]
    for _ in range(draw(st.integers(0, 14))):
        depths.append(draw(st.integers(0, depths[-1] + 1) | st.just(depths[-1] + 1)))
    return row_of(depths)


def laid_out(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows padded to the longest and by two columns more, as packing pads them, and how far each is filled."""
    length = max(map(len, rows)) + 2
    ends = np.tile(np.arange(1, length + 1), (len(rows), 1))
    for row, own in zip(ends, rows, strict=True):
        row[: len(own)] = own
    return ends, np.array([len(row) for row in rows])


def paths(runs: Runs) -> list[tuple[range, list[int]]]:
    """The columns of each run and those of its path."""
    queries, keys = runs.query_bounds.tolist(), runs.key_bounds.tolist()
    return [
        (range(queries[n], queries[n + 1]), runs.key_at_K[keys[n] : keys[n + 1]].tolist())
        for n in range(len(queries) - 1)
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(tries(), min_size=1, max_size=3))
def test_every_column_has_what_it_sees_for_its_path(rows: list[np.ndarray]) -> None:
    ends, filled = laid_out(rows)
    runs, length = runs_of(ends, filled), ends.shape[1]
    covered = []
    for columns, path in paths(runs):
        for behind, flat in enumerate(reversed(columns)):
            covered.append(flat)
            row, i = divmod(flat, length)
            if i < filled[row]:
                sees = [row * length + j for j in range(i + 1) if i < ends[row, j]]
                assert path[: len(path) - behind] == sees
            else:
                assert path[len(path) - behind - 1] == flat
    assert sorted(covered) == list(range(ends.size))
    assert runs.longest_run >= max(len(columns) for columns, _ in paths(runs))
    assert runs.longest_path >= max(len(path) for _, path in paths(runs))
    assert runs.longest_run % LONGEST_MULTIPLE == runs.longest_path % LONGEST_MULTIPLE == 0


@settings(max_examples=50, deadline=None)
@given(tries())
def test_there_are_as_many_runs_as_leaves(row: np.ndarray) -> None:
    leaves = int((row == np.arange(1, len(row) + 1)).sum())
    assert len(paths(runs_of(row[None], np.array([len(row)])))) == leaves


def test_a_pair_is_two_runs_and_its_prompt_is_in_both_paths() -> None:
    """Prompt of 3 columns, answers of 2 and 1: six columns, and nine keys."""
    (first, second) = paths(runs_of(row_of([0, 1, 2, 3, 4, 3])[None], np.array([6])))
    assert first == (range(5), [0, 1, 2, 3, 4])
    assert second == (range(5, 6), [0, 1, 2, 5])


def test_positions_climb_by_one_along_every_path() -> None:
    """Which is why a window of positions is a window of places in the path."""
    batch = packed(family())
    row = batch.subtree_end_RL.numpy()
    runs = runs_of(row, np.array([batch.laid_out]))
    for _, path in paths(runs):
        assert batch.positions_RL.flatten()[path].tolist() == list(range(len(path)))


def test_the_same_on_another_device() -> None:
    runs = runs_of(row_of([0, 1, 1])[None], np.array([3]))
    moved = runs.each(lambda tensor: tensor.to("meta"))
    assert moved.key_at_K.device.type == moved.key_bounds.device.type == moved.query_bounds.device.type == "meta"
    assert (moved.longest_run, moved.longest_path) == (runs.longest_run, runs.longest_path)
