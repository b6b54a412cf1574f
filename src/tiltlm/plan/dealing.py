"""A step's examples shared out over ranks: each computes its part, and all the same number of micro-batches.

Ranks that hold parts of one model work in step: with another number of forward passes they would wait for each other
for ever, or add up gradients of different passes. So every rank makes the same plan of who computes what, which is a
function of the examples alone, and those with fewer micro-batches fill up with empty ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.objectives.interface import MISMATCHED
from tiltlm.plan.batches import MicroBatch, Plan
from tiltlm.plan.packing import Packing
from tiltlm.plan.row_layout import Layout


def dealt(costs: Sequence[int], ranks: int) -> list[list[int]]:
    """Which of some tasks each rank takes, in ascending order: the most costly first, each to the rank with the least.

    Longest processing time first: the rank with the most has at most 4/3 - 1/(3 ranks) times what the best sharing out
    would leave it (R. L. Graham, Bounds on multiprocessing timing anomalies, 1969).
    """
    taken: list[list[int]] = [[] for _ in range(ranks)]
    least = [(0, rank) for rank in range(ranks)]
    for task in sorted(range(len(costs)), key=lambda task: -costs[task]):
        cost, rank = heapq.heappop(least)
        taken[rank].append(task)
        heapq.heappush(least, (cost + costs[task], rank))
    return [sorted(own) for own in taken]


def plan_of_rank(
    columns: TokenColumns,
    examples: np.ndarray,
    token_budget: int,
    layout: Layout,
    reference: np.ndarray | None,
    rank: int,
    ranks: int,
) -> Plan:
    """What one rank computes of the examples: its own micro-batches, and as many empty ones as it lacks.

    The numbers that losses are divided by are those of all ranks together. Only the rank's own part is laid out.

    Args:
        columns, token_budget, layout, reference: see `plan`.
    """
    numbers = np.asarray(examples, dtype=np.int64)
    every = Packing(columns, numbers, layout, reference)
    costs = [every.size(place) for place in range(len(numbers))]
    parts = dealt(costs, ranks)
    packings = [Packing(columns, numbers[own], layout, reference) if own else None for own in parts]
    groups = [[] if packing is None else packing.groups(token_budget) for packing in packings]
    own = packings[rank]
    batches = [] if own is None else [own.micro_batch(group, rows) for group, rows in groups[rank]]
    lacking = max(map(len, groups)) - len(batches)
    fillers = [_filler(columns, numbers, costs, layout, reference)] * lacking if lacking else []
    labelled = every.of_columns[columns.labels[every.of_columns] != MISMATCHED]
    loads = [sum(costs[place] for place in own) for own in parts]
    return Plan(
        (*batches, *fillers),
        examples=len(numbers),
        completions=len(labelled),
        tokens=int(columns.scored_tokens_of(labelled).sum()),
        busy=sum(loads) / (max(loads) * ranks),
    )


def _filler(
    columns: TokenColumns, numbers: np.ndarray, costs: Sequence[int], layout: Layout, reference: np.ndarray | None
) -> MicroBatch:
    """A forward pass that counts for nothing: the shortest of the examples, of none of which it says that it is one."""
    shortest = numbers[[min(range(len(costs)), key=lambda place: costs[place])]]
    packing = Packing(columns, shortest, layout, reference)
    ((group, rows),) = packing.groups(1)
    return packing.micro_batch(group, rows).as_filler()
