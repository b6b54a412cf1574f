"""What a run takes in memory at most, by its settings: a step, and what the process holds besides."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from tiltlm.config import AdapterConfig
from tiltlm.model.attention import layout_of
from tiltlm.model.finding import explained, facts_of_adapter
from tiltlm.model.loading import layers_of
from tiltlm.model.memory import BESIDES, StepMemory, Way
from tiltlm.model.scorer import Scorer
from tiltlm.pipeline.setup import Setup
from tiltlm.plan.row_layout import Layout

HEADROOM = 1.15
"""How many times an estimate must be there for a run to be said to fit: so far may it be off (docs/planning.md)."""

LOST_TO_PIECES = 1 / 3
"""Share of a step's activations that a CPU's heap holds besides, as micro-batches of other sizes leave pieces that none
fits into; taken of the cases of docs/planning.md."""


@dataclass(frozen=True, slots=True)
class RunMemory:
    """Bytes at the peak of a run: of a training step, and of what is there besides.

    besides: the process, and the weights of a reference at work; on a CPU, whose process keeps what training took, also
        what its heap cannot use again, and the model that is read for the evaluation and the answers.
    """

    step: StepMemory
    besides: int

    @property
    def most(self) -> int:
        return self.step.total + self.besides

    def fits(self, there: int) -> bool:
        """Whether so much memory suffices, also where the estimate is too small."""
        return HEADROOM * self.most <= there


def run_memory(setup: Setup, step: StepMemory) -> RunMemory:
    """The memory of a run whose steps take so much on one process; of several ranks, that of one of them."""
    besides, shard = BESIDES, 1
    if setup.ranks.several:
        shard = setup.config.distributed.shard or setup.ranks.count
        step = of_a_rank(step, parts_of(model_configuration(setup)), shard)
    if setup.objective.objective.live_reference:
        besides += 4 * step.parameters // shard
    if setup.device.type == "cpu":
        besides += 4 * step.parameters // shard + int(LOST_TO_PIECES * step.activations)
    return RunMemory(step, besides)


@dataclass(frozen=True, slots=True)
class Parts:
    """Parameters of a model, of all its layers together, and of the largest one."""

    weights: int
    layers: int
    largest: int


def parts_of(model: PreTrainedConfig) -> Parts:
    """Told without its weights."""
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(model, dtype=torch.float32)
    layers = [sum(own.numel() for own in layer.parameters()) for layer in layers_of(made)]
    return Parts(sum(own.numel() for own in made.parameters()), sum(layers), max(layers, default=0))


def of_a_rank(step: StepMemory, parts: Parts, shard: int) -> StepMemory:
    """What a step takes of a rank: its share, what it gathers of the rest, and the activations of a micro-batch.

    Gathered are what is outside of layers, and two layers: the one at work and the next.

    shard: over how many ranks the model is shared out.
    """
    gathered = 0.0 if shard == 1 else (parts.weights - parts.layers + 2 * parts.largest) / parts.weights
    weights, gradients = ((1 / shard + gathered) * size for size in (step.weights, step.gradients))
    return replace(step, weights=int(weights), gradients=int(gradients), moments=step.moments // shard)


def chosen_way(setup: Setup) -> Way:
    """The way to train that the settings say."""
    training = setup.config.training
    adapter = adapter_of(setup)
    return Way(
        setup.base,
        adapter,
        setup.precision,
        training.optimizer,
        training.activation_checkpointing,
        training.vectors,
    )


def adapter_of(setup: Setup) -> AdapterConfig:
    """The adapter of the settings, of model.path, or else a LoRA as it is by default."""
    settings, facts = setup.config.adapter, facts_of_adapter(setup.source)
    if facts is not None:
        named = facts.settings.get("target_modules")
        targets = tuple(named) if isinstance(named, list) and named else AdapterConfig.targets
        return AdapterConfig(kind=facts.kind, rank=facts.rank, alpha=facts.alpha, targets=targets)
    return settings if settings.kind != "none" else AdapterConfig(kind="lora")


def model_configuration(setup: Setup) -> PreTrainedConfig:
    """The configuration of the model that is trained.

    Raises:
        ModelError: it cannot be read.
    """
    source = setup.source
    with explained(source, "configuration"):
        found: PreTrainedConfig = AutoConfig.from_pretrained(
            source.location,
            local_files_only=source.local_files_only,
            trust_remote_code=source.trust_remote_code,
        )
    return found


def layout_for(setup: Setup, model: PreTrainedConfig) -> Layout:
    """How batches for the model are laid out; told without its weights."""
    with torch.device("meta"), explained(setup.source, "model"):
        scorer = Scorer(AutoModelForCausalLM.from_config(model, dtype=torch.float32))
    return layout_of(scorer.model, setup.device)
