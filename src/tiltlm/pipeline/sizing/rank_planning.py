"""What training takes of each of several ranks: memory, arithmetic, bytes on the wire, by sizes alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedConfig

from tiltlm.config import Config
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.memory import BESIDES, StepMemory
from tiltlm.pipeline.sizing.run_memory import Parts, of_a_rank, parts_of
from tiltlm.plan.dealing import plan_of_rank
from tiltlm.plan.packing import plan
from tiltlm.plan.row_layout import Layout
from tiltlm.plan.steps import Order

LOOKED_AT = 8
"""Steps that are dealt out over the ranks, to see how evenly that goes."""
BYTES = 4
"""Of a weight and of a gradient as they go over the wire: float32."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The ranks there are to be, and what joins them.

    per_node: ranks of one machine. within, between: bytes a second that a rank sends within a machine, and to others.
    """

    ranks: int
    per_node: int
    within: float
    between: float


@dataclass(frozen=True, slots=True)
class Work:
    """What one step has of work.

    columns: of all examples. weights, layers, largest: parameters of the model, of all its layers together, and of the
    largest one. passes: micro-batches that every rank runs. busy: what the ranks have to do on average, as a share of
    what the one has that has most.
    """

    columns: float
    weights: int
    layers: int
    largest: int
    passes: float
    busy: float


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds that a rank takes for a column, forward and backward, and for the optimizer's step on all weights."""

    column: float
    update: float


@dataclass(frozen=True, slots=True)
class RankPlan:
    """One way to share out a model over ranks.

    shard: over how many ranks weights are shared out; the rest are replicas. memory: bytes of a rank at the peak of a
    step. within, between: bytes that a rank sends in a step over the wires of a machine, and of the network.
    computing, wire: seconds of a step, of the rank that has most to do.
    """

    shard: int
    memory: int
    within: float
    between: float
    computing: float
    wire: float

    @property
    def at_best(self) -> float:
        """Seconds of a step where all that is sent is sent while something is computed."""
        return max(self.computing, self.wire)

    @property
    def at_worst(self) -> float:
        """The same where nothing is."""
        return self.computing + self.wire


def work_of_a_step(config: Config, model: PreTrainedConfig, columns: TokenColumns, layout: Layout, ranks: int) -> Work:
    """Deals some steps out over the ranks, as training would."""
    order = Order(len(columns), config.training.batch_pairs, config.run.seed)
    budget = config.training.token_budget
    plans = [
        plan_of_rank(columns, order.step(step), budget, layout, None, 0, ranks)
        for step in range(min(LOOKED_AT, order.steps_per_epoch))
    ]
    whole = [plan(columns, order.step(step), budget, layout) for step in range(len(plans))]
    parts = parts_of(model)
    return Work(
        columns=float(np.mean([one.laid_out for one in whole])),
        weights=parts.weights,
        layers=parts.layers,
        largest=parts.largest,
        passes=float(np.mean([len(one.micro_batches) for one in plans])),
        busy=float(np.mean([one.busy for one in plans])),
    )


def rank_plans(work: Work, step: StepMemory, cluster: Cluster, speed: Speed) -> tuple[RankPlan, ...]:
    """Shared out over all ranks, over those of a machine, and not at all."""
    shards = dict.fromkeys((cluster.ranks, min(cluster.per_node, cluster.ranks), 1))
    return tuple(_plan(work, step, cluster, speed, shard) for shard in shards if cluster.ranks % shard == 0)


def sent(work: Work, trained: int, ranks: int, shard: int) -> tuple[float, float]:
    """Bytes that a rank sends in a step to those that it shares the weights with, and to its replicas.

    With each micro-batch weights are gathered for the forward pass and, but for those outside of layers, again for the
    backward pass, and gradients are added up and shared out; over replicas they are added up with the last one alone.
    Each by a ring, which sends (n - 1)/n of what is gathered or shared out over n ranks.
    """
    groups = ranks // shard
    apart = (shard - 1) / shard * (work.weights + work.layers + trained) * work.passes
    together = 2 * (groups - 1) / groups * trained / shard
    return BYTES * apart, BYTES * together


def held(work: Work, step: StepMemory, shard: int) -> int:
    """Bytes of a rank in training."""
    return of_a_rank(step, Parts(work.weights, work.layers, work.largest), shard).total + BESIDES


def _plan(work: Work, step: StepMemory, cluster: Cluster, speed: Speed, shard: int) -> RankPlan:
    apart, together = sent(work, step.trained, cluster.ranks, shard)
    one_machine = cluster.ranks <= cluster.per_node
    # What ranks of several machines share with each other goes at the pace of the slower wire.
    within = (apart if shard <= cluster.per_node else 0.0) + (together if one_machine else 0.0)
    between = apart + together - within
    computing = speed.column * work.columns / (cluster.ranks * work.busy) + speed.update / shard
    return RankPlan(
        shard=shard,
        memory=held(work, step, shard),
        within=within,
        between=between,
        computing=computing,
        wire=within / cluster.within + between / cluster.between,
    )


def speed_of(operations: float, step: StepMemory, again: bool) -> Speed:
    """The speed of a device that sustains so many operations a second in training.

    Of a weight and column a forward pass takes two, a backward pass two for the activations' gradients, and two for the
    weight's where it is trained. What attention takes besides is left out, and so is the optimizer.

    again: whether activations are recomputed, by another forward pass.
    """
    return Speed(((6 if again else 4) * step.parameters + 2 * step.trained) / operations, 0.0)
