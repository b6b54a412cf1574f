"""What a run would take, before it takes it: parameters, memory by part, disk, steps, tokens; no weight is loaded."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedConfig

from tiltlm.config import Config
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.distributed.ranks import Ranks
from tiltlm.distributed.sharding import require_possible
from tiltlm.model.available_memory import available_to_a_rank
from tiltlm.model.frozen import Base
from tiltlm.model.memory import StepMemory, Way, step_memory
from tiltlm.model.weight_files import require_safe_weights
from tiltlm.pipeline.calibration import Pace, StageTime, stage_times
from tiltlm.pipeline.prepare import prepare
from tiltlm.pipeline.remedies import Remedy, remedies
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup, require_sound_models, set_up
from tiltlm.pipeline.sizing.rank_planning import Cluster, RankPlan, Speed, Work, rank_plans, speed_of, work_of_a_step
from tiltlm.pipeline.sizing.run_memory import (
    RunMemory,
    adapter_of,
    chosen_way,
    layout_for,
    model_configuration,
    run_memory,
)
from tiltlm.pipeline.sizing.token_budget import with_budget
from tiltlm.plan.batches import MicroBatch, Plan
from tiltlm.plan.packing import plan
from tiltlm.plan.row_layout import Layout
from tiltlm.plan.steps import Order
from tiltlm.training.step_plans import total_steps

LOOKED_AT = 64
"""Steps that are laid out: the largest micro-batch is theirs, and the tokens of all are told from theirs."""


@dataclass(frozen=True, slots=True)
class PlannedWay:
    """One way to train, by its name, and what a run of it takes. chosen: whether it is what the settings say."""

    name: str
    chosen: bool
    way: Way
    run: RunMemory

    @property
    def memory(self) -> StepMemory:
        """What a step takes."""
        return self.run.step


@dataclass(frozen=True, slots=True)
class SharedPlan:
    """What a step takes of each of several ranks, by how a model is shared out; `alone` of one that has all of it.

    sustained: operations a second that were given for a device; None where its speed was measured here.
    """

    cluster: Cluster
    work: Work
    ways: tuple[RankPlan, ...]
    alone: float
    sustained: float | None


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would come to.

    steps: optimizer steps; tokens: all of them, prompts once, about. examples: that are trained on.
    row, rows, scored: columns, rows and scored tokens of the largest micro-batch.
    budget: most tokens in a forward pass. device: which; available: bytes of memory that may still be taken on it, None
        where that is not known. precision: why this arithmetic.
    remedies: what would take less, where the settings do not fit. times: of the stages; empty where none was looked at.
    shared: what several ranks would take, where that was asked for.
    """

    ways: tuple[PlannedWay, ...]
    steps: int
    tokens: int
    examples: int
    row: int
    rows: int
    scored: int
    budget: int
    device: str
    available: int | None
    precision: str
    remedies: tuple[Remedy, ...]
    times: tuple[StageTime, ...]
    shared: SharedPlan | None = None

    def fits(self, one: PlannedWay) -> bool | None:
        """Whether a run fits in the memory that is available; None where that is not known."""
        return None if self.available is None else one.run.fits(self.available)


def plan_run(
    config: Config,
    reporter: Reporter,
    calibrated: bool = False,
    cluster: Cluster | None = None,
    sustained: float | None = None,
) -> RunPlan:
    """Reads the data and the model's configuration, lays steps out, and runs one of each way without content.

    calibrated: whether to run a little of each stage too, on the model as it is, to tell how long all of it takes.
    cluster: several ranks to share the work out to. sustained: operations a second of one device in training; None:
        what is measured here, if anything is.

    Raises:
        TiltlmError: as a run would, for data, settings or a model that cannot be used.
    """
    started = time.perf_counter()
    setup = set_up(config)
    if cluster is not None:
        require_possible(config.distributed, Ranks(0, cluster.ranks), config.adapter.quantise != "none")
    if calibrated:
        require_safe_weights(setup.source)
        require_sound_models(setup)
    data = prepare(setup, reporter)
    setup = with_budget(setup, data, reporter)
    reading = time.perf_counter() - started
    model = model_configuration(setup)
    layout = layout_for(setup, model)
    config = setup.config
    steps = total_steps(config.training, len(data.train))
    plans = _laid_out(config, data.train, steps, layout)
    largest = max((batch for one in plans for batch in one.micro_batches), key=_size)
    # What others would take on this device is no answer to how many devices there are to be.
    ways = _ways(setup) if cluster is None else {CHOSEN: chosen_way(setup)}
    found = _memory_of_ways(setup, ways, model, largest, reporter)
    available = available_to_a_rank(setup.ranks, setup.device)
    short = available is not None and not found[0].run.fits(available)
    looked = calibrated and not short and (cluster is None or sustained is None)
    times, pace = stage_times(setup, data, plans, reading, reporter) if looked else ((), None)
    shared = None
    if cluster is not None:
        work = work_of_a_step(config, model, data.train, layout, cluster.ranks)
        shared = _shared(cluster, work, found[0], sustained, pace)
    return RunPlan(
        ways=found,
        steps=steps,
        tokens=round(np.mean([one.laid_out for one in plans]) * steps),
        examples=len(data.train),
        row=largest.tokens_RL.shape[1],
        rows=largest.tokens_RL.shape[0],
        scored=len(largest.score_at_S),
        device=setup.device.type,
        budget=setup.config.training.token_budget,
        available=available,
        precision=setup.precision_why,
        remedies=remedies(setup, data.train) if short and cluster is None else (),
        times=times,
        shared=shared,
    )


def _memory_of_ways(
    setup: Setup, ways: Mapping[str, Way], model: PreTrainedConfig, largest: MicroBatch, reporter: Reporter
) -> tuple[PlannedWay, ...]:
    """What each way to train takes whose largest micro-batch is this one."""
    found = []
    with reporter.progress("ways to train", len(ways), "ways") as advance:
        for name, way in ways.items():
            memory = run_memory(setup, step_memory(model, way, largest, setup.device))
            found.append(PlannedWay(name, name == CHOSEN, way, memory))
            advance(1)
    return tuple(found)


def _shared(
    cluster: Cluster, work: Work, chosen: PlannedWay, sustained: float | None, pace: Pace | None
) -> SharedPlan | None:
    """What the ranks would take; None where it is not known how fast one is."""
    step = chosen.memory
    if sustained is not None:
        speed = speed_of(sustained, step, chosen.way.activation_checkpointing)
    elif pace is not None:
        speed = Speed(pace.trained, pace.update)
    else:
        return None
    alone = speed.column * work.columns + speed.update
    return SharedPlan(cluster, work, rank_plans(work, step, cluster, speed), alone, sustained)


CHOSEN = "as set"


def _laid_out(config: Config, columns: TokenColumns, steps: int, layout: Layout) -> list[Plan]:
    order = Order(len(columns), config.training.batch_pairs, config.run.seed)
    budget = config.training.token_budget
    return [plan(columns, order.step(step), budget, layout) for step in range(min(steps, LOOKED_AT))]


def _size(batch: MicroBatch) -> int:
    return batch.tokens_RL.numel()


def _ways(setup: Setup) -> dict[str, Way]:
    """What the settings say first, then what else there is, activations kept or recomputed."""
    adapter = adapter_of(setup)
    precision = setup.precision
    narrow = torch.bfloat16 if precision is torch.bfloat16 else torch.float32
    bases: dict[str, Base | None] = {"all weights": None, adapter.kind: Base()}
    if narrow is torch.bfloat16:
        bases[f"{adapter.kind}, bfloat16 base"] = Base("none", narrow)
    bases[f"{adapter.kind}, nf4 base"] = Base("nf4", narrow)
    chosen = chosen_way(setup)
    ways = {CHOSEN: chosen}
    for name, base in bases.items():
        for again in (False, True):
            way = dataclasses.replace(chosen, base=base, activation_checkpointing=again, vectors=False)
            if way != chosen:
                ways[f"{name}, recomputed" if again else name] = way
    return ways
