"""The least arithmetic that a training step needs, whoever computes it: what is called useful.

Counted are matrix products, a multiplication and an addition each: those of the linear layers, once for every token
that is not shared; those of attention, for every token that a token sees; those of the output layer, once for every
scored token. Norms, activations and the optimizer are not counted, nor padding, nor anything computed twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tiltlm.bench.speed_record import StepWork
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.attention import why_not_shareable
from tiltlm.plan.tries import SortedSequences


@dataclass(frozen=True, slots=True)
class ForwardCost:
    """Floating-point operations of a model's forward pass.

    token: of the linear layers, for each token. scored: of the output layer, for each scored token.
    seen: of attention, for each token that a token sees, by the layers' windows; None is a layer without one.
    """

    token: float
    scored: float
    seen: dict[int | None, float]


def forward_cost(model: PreTrainedModel) -> ForwardCost | None:
    """What a forward pass of the model costs, told from its layers' shapes; None where that is not sure.

    It is sure where every matrix is one of a linear layer or an embedding, and every layer attends: not of experts, of
    which each token passes a few, nor of layers that carry a state.
    """
    body, head = model.base_model, model.get_output_embeddings()
    linear = {id(m.weight): m.weight.numel() for m in body.modules() if isinstance(m, nn.Linear | Conv1D)}
    known = {id(m.weight) for m in body.modules() if isinstance(m, nn.Embedding)} | linear.keys()
    matrices = {id(own) for own in body.parameters() if own.dim() > 1}
    if matrices - known or not isinstance(head, nn.Linear) or why_not_shareable(model) is not None:
        return None
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    seen: dict[int | None, float] = {}
    for window in _windows(config):
        # Scores, and the sum of values: two products of the heads' whole width.
        seen[window] = seen.get(window, 0.0) + 2 * 2 * width
    return ForwardCost(2.0 * sum(linear.values()), 2.0 * head.weight.numel(), seen)


def _windows(config: PreTrainedConfig) -> list[int | None]:
    """How far each layer sees; None: as far as there is."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return [window if kind == "sliding_attention" else None for kind in kinds]
    return [window] * config.num_hidden_layers


def step_work(cost: ForwardCost | None, columns: TokenColumns, examples: Sequence[int]) -> StepWork:
    """What a step over some examples must compute."""
    numbers = np.concatenate([np.arange(columns.members[e], columns.members[e + 1]) for e in examples])
    found = SortedSequences(columns, numbers)
    order = found.sort(range(len(numbers)))
    stems = [0, *(found.stem(before, after) for before, after in itertools.pairwise(order))]
    # A token at position p of its sequence sees p + 1; those below the stem are laid out with an earlier sequence.
    seeing = np.concatenate([np.arange(stem, found.lengths[s]) + 1 for s, stem in zip(order, stems, strict=True)])
    scored = int(columns.scored_tokens_of(numbers).sum())
    halves = (numbers[0::2], numbers[1::2])
    lengths = np.diff(columns.bounds)
    padded = sum(len(half) * int(lengths[half].max()) for half in halves)
    forward = None
    if cost is not None:
        attention = sum(each * _seen(seeing, window) for window, each in cost.seen.items())
        forward = cost.token * len(seeing) + cost.scored * scored + attention
    return StepWork(len(seeing), scored, padded, forward)


def _seen(seeing: np.ndarray, window: int | None) -> int:
    return int((seeing if window is None else np.minimum(seeing, window)).sum())
