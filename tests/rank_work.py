"""What tests have ranks do: training of tiny models, whose weights and rows are given back as plain numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import SHAREABLE, UNSHAREABLE, build
from tiny_runs import Kept, at_work, bound, examples_for, measured, moved
from transformers import MixtralConfig, PreTrainedConfig, Qwen3MoeConfig

from tiltlm.checkpoints.checkpoint_folder import Circumstances, checkpoints_in, write_checkpoint
from tiltlm.checkpoints.shared_checkpoint import begin_together
from tiltlm.checkpoints.state_files import read_state
from tiltlm.config import AdapterConfig, DistributedConfig, TrainingConfig
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.distributed.sharding import leave_open, share_out
from tiltlm.distributed.shares import whole
from tiltlm.errors import NonFiniteError
from tiltlm.model.adapters import new_adapter
from tiltlm.model.loading import layers_of
from tiltlm.model.scorer import Scorer
from tiltlm.plan.batches import Plan
from tiltlm.plan.dealing import plan_of_rank
from tiltlm.runs.checkpoint_record import StoredFile
from tiltlm.training.bound_objective import BoundObjective
from tiltlm.training.loop import Trainer
from tiltlm.training.losses import backward
from tiltlm.training.step_plans import Referenced
from tiltlm.training.stop import StopRequest

BUDGET = 48
"""So few columns in a forward pass that ranks have several, and not all the same number."""


def family(name: str) -> Any:
    if name in EXPERTS:
        return EXPERTS[name]()
    return SHAREABLE[name]() if name in SHAREABLE else UNSHAREABLE[name][0]()


def _with_experts(kind: Callable[..., PreTrainedConfig], **own: Any) -> PreTrainedConfig:
    """Of whose layers each token goes through two; computed in any type."""
    common: dict[str, Any] = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = kind(**common, intermediate_size=48, num_key_value_heads=2, num_experts_per_tok=2, **own)
    config._experts_implementation = "eager"
    return config


EXPERTS: dict[str, Callable[[], PreTrainedConfig]] = {
    "mixtral": lambda: _with_experts(MixtralConfig, num_local_experts=8),
    "qwen3_moe": lambda: _with_experts(Qwen3MoeConfig, num_experts=8, moe_intermediate_size=24),
}
"""Of so many experts that the few tokens of a rank leave some without any, and other ranks others."""


def gradients(ranks: Ranks, name: str, objective: str, examples: int, shard: int = 0) -> dict[str, np.ndarray]:
    """The gradient of some examples' mean loss in float64, by name of the weights, whole."""
    scorer, columns, own, reference = _subject(name, objective, examples)
    parts = [_part(columns, scorer, reference, rank, max(ranks.count, 1)) for rank in range(ranks.count)]
    _share_out(ranks, scorer, own, DistributedConfig(shard=shard))
    backward(scorer, parts[ranks.rank], own, torch.float32, lambda losses: None, ranks)
    return {name: whole(weights.grad).numpy() for name, weights in scorer.trained().items() if weights.grad is not None}


def gradients_alone(name: str, objective: str, examples: int, ranks: int) -> dict[str, np.ndarray]:
    """The same in one process, of the same micro-batches."""
    scorer, columns, own, reference = _subject(name, objective, examples)
    parts = [_part(columns, scorer, reference, rank, ranks) for rank in range(ranks)]
    batches = tuple(batch for part in parts for batch in part.counted)
    whole_plan = dataclasses.replace(parts[0], micro_batches=batches)
    backward(scorer, whole_plan, own, torch.float32, lambda losses: None)
    return {name: weights.grad.numpy() for name, weights in scorer.trained().items() if weights.grad is not None}


def _subject(
    name: str, objective: str, examples: int
) -> tuple[Scorer, TokenColumns, BoundObjective, np.ndarray | None]:
    scorer = Scorer(build(family(name)))
    own = at_work(bound(objective), scorer)
    columns = examples_for(own.needs, examples)
    reference = None
    if own.needs.reference:
        reference = measured(bound(), moved(Scorer(build(family(name))), 0.02), columns)
    return scorer, columns, own, reference


def _part(columns: TokenColumns, scorer: Scorer, reference: np.ndarray | None, rank: int, ranks: int) -> Plan:
    return plan_of_rank(columns, np.arange(len(columns)), BUDGET, scorer.layout, reference, rank, ranks)


def _share_out(ranks: Ranks, scorer: Scorer, objective: BoundObjective, settings: DistributedConfig) -> None:
    for one in (scorer, objective.reference):
        if one is not None:
            share_out(one, layers_of(one.model), settings, ranks, one.device)
    if objective.reference is not None:
        leave_open(objective.reference)


@dataclass(frozen=True)
class Training:
    """A short training: of which model and objective, and how."""

    name: str = "llama"
    objective: str = "sigmoid"
    examples: int = 11
    steps: int = 5
    batch: int = 4
    adapter: bool = False
    optimizer: str = "adamw"
    shard: int = 0
    clip: float = 10.0
    offload: bool = False


@dataclass(frozen=True)
class Trained:
    """Rows as tables, and weights by name."""

    rows: list[dict[str, Any]]
    weights: dict[str, np.ndarray]


def trainer(ranks: Ranks, wanted: Training, spoilt: int | None = None) -> Trainer:
    """spoilt: an example of which the reference's values are made no numbers."""
    scorer = Scorer(build(family(wanted.name), torch.float32))
    if wanted.adapter:
        scorer = new_adapter(scorer, AdapterConfig(kind="lora", rank=2), 0)
    own = at_work(bound(wanted.objective), scorer)
    columns = examples_for(own.needs, wanted.examples)
    reference = None
    if own.needs.reference:  # of another model, so that no reward is zero but for rounding
        other = moved(Scorer(build(family(wanted.name), torch.float32)), 0.05)
        reference = measured(bound(), other, columns)
    if spoilt is not None and reference is not None:
        reference[columns.scored_starts[columns.members[spoilt]]] = np.nan
    if ranks.several:
        _share_out(ranks, scorer, own, DistributedConfig(shard=wanted.shard, offload=wanted.offload))
    config = TrainingConfig(
        max_steps=wanted.steps,
        batch_pairs=wanted.batch,
        micro_batch_tokens=BUDGET,
        learning_rate=1e-3,
        eval_every=2,
        optimizer=wanted.optimizer,  # type: ignore[arg-type]
        gradient_clip=wanted.clip,
    )
    examples = Referenced(columns, reference)
    return Trainer(scorer, own, config, 0, torch.float32, examples, examples, ranks)


def trained(ranks: Ranks, wanted: Training, state: Path | None = None, until: int | None = None) -> Trained:
    """Trains, from a checkpoint in a folder if one is there, to the end or until so many steps; then one is there."""
    made, kept, stop = trainer(ranks, wanted), Kept(), StopRequest()
    if went_on := state is not None and state.is_dir():
        made.restore(read_state(checkpoints_in(state)[-1], made.to_be_filled(), ranks))

    def after_step(one: Trainer) -> None:
        asks = (
            ranks.rank == ranks.count - 1
        )  # one of them, and the others stop too, after the step in which they hear it
        stop.requested = asks and until is not None and one.progress.step + ranks.several >= until

    made.train(stop, kept, after_step=after_step)
    if state is not None and not went_on:
        circumstances = Circumstances(StoredFile(bytes=0, xxh3_128=""), None, {}, {})
        if (group := ranks.beside()) is None:
            write_checkpoint(state, made.state(), circumstances)
        else:
            begin_together(state, made.state(), circumstances, ranks, group)()
    rows = [{"kind": type(row).__name__, **dataclasses.asdict(row)} for row in kept.rows]
    return Trained(rows, {name: whole(own.detach()).numpy() for name, own in made.scorer.trained().items()})


def trained_alone(wanted: Training) -> Trained:
    return trained(ALONE, wanted)


def failed(ranks: Ranks, wanted: Training, spoilt: int) -> str:
    """What is said of a step of which one example's reference is not a number."""
    made = trainer(ranks, wanted, spoilt)
    with pytest.raises(NonFiniteError) as raised:
        made.train(StopRequest(), Kept())
    return str(raised.value)
