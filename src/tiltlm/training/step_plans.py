"""Which examples each step of training has, and what this process computes of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from tiltlm.config import TrainingConfig
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.plan.batches import Plan
from tiltlm.plan.dealing import plan_of_rank
from tiltlm.plan.packing import plan
from tiltlm.plan.row_layout import Layout
from tiltlm.plan.steps import Order


@dataclass(frozen=True, slots=True, eq=False)
class Referenced:
    """Examples with the reference's log-probabilities of all scored tokens; None where the objective needs none."""

    columns: TokenColumns
    reference: np.ndarray | None

    def plan(self, examples: np.ndarray | range, token_budget: int, layout: Layout, ranks: Ranks = ALONE) -> Plan:
        """The plan of some of the examples, or of several ranks this one's part of it."""
        numbers = np.asarray(examples)
        if not ranks.several:
            return plan(self.columns, numbers, token_budget, layout, self.reference)
        return plan_of_rank(self.columns, numbers, token_budget, layout, self.reference, ranks.rank, ranks.count)


def total_steps(training: TrainingConfig, examples: int) -> int:
    """Optimizer steps of the whole training."""
    return training.max_steps or training.epochs * math.ceil(examples / training.batch_pairs)


@dataclass(slots=True, eq=False)
class StepPlans:
    """The plan of every step: a function of the examples, the seed, the step and the ranks alone.

    pinned: whether plans lie in page-locked memory, from which a GPU copies while it computes.
    """

    examples: Referenced
    training: TrainingConfig
    seed: int
    layout: Layout
    pinned: bool = False
    ranks: Ranks = ALONE
    order: Order = field(init=False)

    def __post_init__(self) -> None:
        self.order = Order(len(self.examples.columns), self.training.batch_pairs, self.seed)

    @property
    def steps(self) -> int:
        """How many there are."""
        return total_steps(self.training, len(self.examples.columns))

    def of_all_ranks(self, step: int) -> Plan:
        """The plan of a step as one process would have it."""
        return self.examples.plan(self.order.step(step), self.training.token_budget, self.layout)

    def __call__(self, step: int) -> Plan:
        """The plan of a step, counted from 0."""
        made = self.examples.plan(self.order.step(step), self.training.token_budget, self.layout, self.ranks)
        return made.pinned() if self.pinned else made
