"""What a run would take, before it takes it: parameters, memory by part, disk, steps, tokens; no weight is loaded."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from tiltlm.config import AdapterConfig, Config
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.attention import layout_of
from tiltlm.model.finding import explained, facts_of_adapter
from tiltlm.model.frozen import Base
from tiltlm.model.memory import BESIDES, StepMemory, Way, memory_of, step_memory
from tiltlm.model.scorer import Scorer
from tiltlm.pipeline.prepare import prepare
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup, set_up
from tiltlm.plan.batches import MicroBatch, Plan
from tiltlm.plan.layouts import Layout
from tiltlm.plan.packing import plan
from tiltlm.plan.steps import Order
from tiltlm.training.loop import total_steps

LOOKED_AT = 64
"""Steps that are laid out: the largest micro-batch is theirs, and the tokens of all are told from theirs."""


@dataclass(frozen=True, slots=True)
class PlannedWay:
    """One way to train, by its name, and what a step of it takes. chosen: whether it is what the settings say."""

    name: str
    chosen: bool
    way: Way
    memory: StepMemory


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would come to.

    steps: optimizer steps; tokens: all of them, prompts once, about. examples: that are trained on.
    row, rows, scored: columns, rows and scored tokens of the largest micro-batch.
    device: which; memory: bytes it has, None where that is not known. precision: why this arithmetic.
    """

    ways: tuple[PlannedWay, ...]
    steps: int
    tokens: int
    examples: int
    row: int
    rows: int
    scored: int
    device: str
    memory: int | None
    precision: str

    def fits(self, one: PlannedWay) -> bool | None:
        """Whether a step fits in the device's memory; None where that is not known."""
        return None if self.memory is None else one.memory.total + BESIDES <= self.memory


def plan_run(config: Config, reporter: Reporter) -> RunPlan:
    """Reads the data and the model's configuration, lays steps out, and runs one of each way without content.

    Raises:
        TiltlmError: as a run would, for data, settings or a model that cannot be used.
    """
    setup = set_up(config)
    data = prepare(setup, reporter)
    model = _configuration(setup)
    with torch.device("meta"), explained(setup.source, "model"):
        scorer = Scorer(AutoModelForCausalLM.from_config(model, dtype=torch.float32))
    steps = total_steps(config.training, len(data.train))
    plans = _laid_out(config, data.train, steps, layout_of(scorer.model, setup.device))
    largest = max((batch for one in plans for batch in one.micro_batches), key=_size)
    ways = _ways(setup)
    found = []
    with reporter.progress("ways to train", len(ways), "ways") as advance:
        for name, way in ways.items():
            found.append(PlannedWay(name, name == CHOSEN, way, step_memory(model, way, largest, setup.device)))
            advance(1)
    return RunPlan(
        ways=tuple(found),
        steps=steps,
        tokens=round(np.mean([one.laid_out for one in plans]) * steps),
        examples=len(data.train),
        row=largest.tokens_RL.shape[1],
        rows=largest.tokens_RL.shape[0],
        scored=len(largest.score_at_S),
        device=setup.device.type,
        memory=memory_of(setup.device),
        precision=setup.precision_why,
    )


CHOSEN = "as set"


def _configuration(setup: Setup) -> PreTrainedConfig:
    source = setup.source
    with explained(source, "configuration"):
        found: PreTrainedConfig = AutoConfig.from_pretrained(
            source.location,
            local_files_only=source.local_files_only,
            trust_remote_code=source.trust_remote_code,
        )
    return found


def _laid_out(config: Config, columns: TokenColumns, steps: int, layout: Layout) -> list[Plan]:
    order = Order(len(columns), config.training.batch_pairs, config.run.seed)
    budget = config.training.micro_batch_tokens
    return [plan(columns, order.step(step), budget, layout) for step in range(min(steps, LOOKED_AT))]


def _size(batch: MicroBatch) -> int:
    return batch.tokens_RL.numel()


def _ways(setup: Setup) -> dict[str, Way]:
    """What the settings say first, then what else there is, activations kept or recomputed."""
    training, adapter = setup.config.training, _adapter(setup)
    precision = setup.precision
    narrow = torch.bfloat16 if precision is torch.bfloat16 else torch.float32
    bases: dict[str, Base | None] = {"all weights": None, adapter.kind: Base()}
    if narrow is torch.bfloat16:
        bases[f"{adapter.kind}, bfloat16 base"] = Base("none", narrow)
    bases[f"{adapter.kind}, nf4 base"] = Base("nf4", narrow)
    chosen = Way(setup.base, adapter, precision, training.optimizer, training.activation_checkpointing)
    ways = {CHOSEN: chosen}
    for name, base in bases.items():
        for again in (False, True):
            way = dataclasses.replace(chosen, base=base, activation_checkpointing=again)
            if way != chosen:
                ways[f"{name}, recomputed" if again else name] = way
    return ways


def _adapter(setup: Setup) -> AdapterConfig:
    """The adapter of the settings, of model.path, or else a LoRA as it is by default."""
    settings, facts = setup.config.adapter, facts_of_adapter(setup.source)
    if facts is not None:
        named = facts.settings.get("target_modules")
        targets = tuple(named) if isinstance(named, list) and named else AdapterConfig.targets
        return AdapterConfig(kind=facts.kind, rank=facts.rank, alpha=facts.alpha, targets=targets)
    return settings if settings.kind != "none" else AdapterConfig(kind="lora")
