"""A tiny model and its tokenizer on disk, and trainers on tiny examples: for tests of whole stages."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_models import SHAREABLE, VOCABULARY, build
from tiny_tokenizers import CHAT_TEMPLATE, byte_level
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from tiltlm.config import TrainingConfig
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.model.reference import ReferenceCache, reference_address, reference_values
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import score
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED, Needs
from tiltlm.plan.batches import MicroBatch
from tiltlm.plan.packing import plan
from tiltlm.plan.row_layout import DENSE, Layout
from tiltlm.runs.rows import EvalRow, TrainRow
from tiltlm.training.bound_objective import BoundObjective, asked_by
from tiltlm.training.loop import Trainer
from tiltlm.training.observers import Row
from tiltlm.training.step_plans import Referenced


def tiny_model(name: str = "llama", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return build(SHAREABLE[name](), dtype)


def moved(scorer: Scorer, step: float, seed: int = 1) -> Scorer:
    """The scorer after a random step of all its weights, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in scorer.parameters():
            parameter.add_(step * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return scorer


def sequence(ids: Iterable[int], first_scored: int, tokens_cut: int = 0) -> TokenizedSequence:
    return TokenizedSequence(np.array(list(ids), dtype=np.int32), first_scored, tokens_cut)


def pairs(count: int, seed: int = 0) -> TokenColumns:
    """Random pairs of uneven lengths over the tiny vocabulary, ending in EOS (2)."""
    return examples_for(Needs(), count, seed, "pair")


def examples_for(needs: Needs, count: int, seed: int = 0, name: str = "example") -> TokenColumns:
    """Random examples of the kind an objective needs, of uneven lengths over the tiny vocabulary, ending in EOS (2).

    Of labelled completions the first example has a chosen and a rejected one, the others one or two of any label.
    """
    rng = np.random.default_rng(seed)

    def completion(before: list[int]) -> TokenizedSequence:
        return sequence([*before, *rng.integers(3, VOCABULARY, rng.integers(1, 9)), 2], len(before))

    made = []
    for number in range(count):
        own = [1, *rng.integers(3, VOCABULARY, rng.integers(2, 12))]
        labels = [CHOSEN] if needs.unit == "demonstration" else [CHOSEN, REJECTED]
        if needs.unit == "completion" and number:
            labels = rng.choice([CHOSEN, REJECTED], rng.integers(1, 3)).tolist()
        scores = [1.5, 0.25] if needs.scores != "none" else None
        if needs.unit == "list":
            scores = [3.0, *rng.integers(0, 3, rng.integers(1, 4)).tolist()]
            labels = [CHOSEN, *[REJECTED] * (len(scores) - 1)]
        sequences = [completion(own) for _ in labels]
        if needs.mismatched:
            sequences += [completion(own) for _ in labels]
            labels += [MISMATCHED] * len(labels)
        kept = None if scores is None else tuple(map(float, scores))
        made.append(TokenizedExample(f"{name} {number}", tuple(sequences), tuple(labels), scores=kept))
    columns = TokenColumns.of(made)
    if not needs.credit:
        return columns
    return replace(columns, credit=rng.uniform(-0.5, 0.5, int(columns.scored_starts[-1])).astype(np.float32))


def packed(sequences: Sequence[TokenizedSequence], layout: Layout = DENSE) -> MicroBatch:
    """Sequences as one example, laid out as one micro-batch in which they are numbered as given."""
    columns = TokenColumns.of([TokenizedExample("all", tuple(sequences), (CHOSEN,) * len(sequences))])
    (batch,) = plan(columns, [0], 1, layout).micro_batches
    return batch


def bound(name: str = "sigmoid", **settings: float) -> BoundObjective:
    """An objective of the table with its settings."""
    return BoundObjective(OBJECTIVES[name], OBJECTIVES[name].settings(**settings))


def at_work(objective: BoundObjective, scorer: Scorer) -> BoundObjective:
    """The objective with the model as it is for a reference at work, where it wants one."""
    if not objective.objective.live_reference:
        return objective
    return replace(objective, reference=copy.deepcopy(scorer).requires_grad_(False))


def measured(objective: BoundObjective, scorer: Scorer, columns: TokenColumns) -> np.ndarray:
    """All that the objective must know of the columns' scored tokens under this model."""
    return score(scorer, columns, torch.float32, 256, asked=asked_by(objective, objective.reference))


def referenced(scorer: Scorer, columns: TokenColumns, folder: Path) -> Referenced:
    """Examples with this reference's values, through a cache in the folder."""
    cache = ReferenceCache(folder, reference_address(scorer, torch.float32))
    values = reference_values(scorer, columns, cache, torch.float32, 256)
    cache.close()
    return Referenced(columns, values)


def trainer(
    scorer: Scorer,
    train: Referenced,
    held_out: Referenced | None = None,
    training: TrainingConfig | None = None,
    loss: BoundObjective | None = None,
    precision: torch.dtype = torch.float32,
) -> Trainer:
    """A trainer with seed 0; without held-out examples it has those it trains on. A reference at work is the policy as
    it is."""
    objective = loss or bound()
    if objective.reference is None:
        objective = at_work(objective, scorer)
    return Trainer(
        scorer,
        objective,
        training or TrainingConfig(),
        0,
        precision,
        train,
        train if held_out is None else held_out,
    )


class Kept:
    """An observer that keeps the rows it is given, after it has told another one of them."""

    def __init__(self, also: Callable[[Row], None] = lambda row: None) -> None:
        self.rows: list[Row] = []
        self._also = also

    def __call__(self, row: Row) -> None:
        self.rows.append(row)
        self._also(row)

    @property
    def train(self) -> list[TrainRow]:
        return [row for row in self.rows if isinstance(row, TrainRow)]

    @property
    def evaluations(self) -> list[EvalRow]:
        return [row for row in self.rows if isinstance(row, EvalRow)]

    @property
    def losses(self) -> list[float]:
        return [row.loss for row in self.train]


def write_model(folder: Path, seed: int = 0, chat: bool = False) -> Path:
    """A random GPT-2 of a few thousand weights and its byte-level tokenizer, as `save_pretrained` leaves them."""
    tokenizer = byte_level(chat_template=CHAT_TEMPLATE if chat else None)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 1024, "initializer_range": 0.3}
    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **ends)).save_pretrained(folder)
    return folder


def write_pairs(path: Path, count: int = 8) -> Path:
    """Short pairs of text, each with a prompt of its own."""
    rows = [{"prompt": f"Is {n} a number? Answer:", "chosen": " yes", "rejected": " no"} for n in range(count)]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path
