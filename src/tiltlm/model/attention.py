"""How packed rows are attended to, and which models can take them (architecture, idea 1)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from tiltlm.errors import ModelError
from tiltlm.model import varlen_attention
from tiltlm.model.block_attention import block_attention
from tiltlm.plan.batches import MicroBatch
from tiltlm.plan.blocks import Blocks
from tiltlm.plan.row_layout import BLOCKS, DENSE, RUNS, SEQUENCES, Layout
from tiltlm.plan.runs import Runs

_SHAREABLE_LAYERS = {"full_attention", "sliding_attention"}

Mask = Tensor | dict[str, Tensor]

OF_TREES = "tiltlm_trees"
"""The name of our attention among those of transformers (`model.set_attn_implementation`)."""


def sees(batch: MicroBatch, window: int | None = None) -> Tensor:
    """Which column i sees which column j: j <= i < subtree_end[j], within `window` positions if given.

    Returns:
        bool, shape (R, 1, L, L), indexed [row, 0, i, j].
    """
    column = torch.arange(batch.tokens_RL.shape[1], device=batch.tokens_RL.device)
    i, j = column[:, None], column[None, :]
    mask = (j <= i) & (i < batch.subtree_end_RL[:, None, :])
    if window is not None:
        mask &= batch.positions_RL[:, :, None] - batch.positions_RL[:, None, :] < window
    return mask[:, None]


def attention_arguments(model: PreTrainedModel, batch: MicroBatch) -> dict[str, Any]:
    """What the model is given besides tokens so that its layers see trees: masks; and blocks, or runs where the kernel
    for them serves.

    There is one mask, or one per kind of layer. Beside blocks or runs a mask only says how far a layer sees back.
    """
    tree: dict[str, Any] = {}
    if batch.blocks is not None:
        tree = {"blocks": batch.blocks}
    elif batch.runs is not None and _has_varlen(model):
        tree = {"runs": batch.runs}

    def made(window: int | None) -> Tensor:
        return _only_a_window(batch, window) if tree else sees(batch, window)

    return {"attention_mask": by_kind_of_layer(model, made), **tree}


def by_kind_of_layer(model: PreTrainedModel, made: Callable[[int | None], Tensor]) -> Mask:
    """Masks in the form that the model's layers take: one, or one for each kind of layer.

    made: gives the mask of layers with this window; None: without one.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if "sliding_attention" in kinds:
        return {kind: made(window if kind == "sliding_attention" else None) for kind in kinds}
    return made(None if kinds else window)


def _has_varlen(model: PreTrainedModel) -> bool:
    device = model.device
    dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else model.dtype
    return varlen_attention.why_no_varlen(model, device, dtype) is None


def _only_a_window(batch: MicroBatch, window: int | None) -> Tensor:
    """A mask without content, of one row; its length tells the window, 1: none."""
    return torch.ones(1, 1, 1, 1, device=batch.tokens_RL.device).expand(1, 1, 1, 1 if window is None else 1 + window)


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    blocks: Blocks | None = None,
    runs: Runs | None = None,
    **further: Any,
) -> tuple[Tensor, None]:
    """By blocks or runs where they are given; else as transformers' scaled dot-product attention does it."""
    if blocks is None and runs is None:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **further
        )
        return found
    unknown = [name for name in ("softcap", "s_aux", "position_bias", "cache") if further.get(name) is not None]
    if unknown or dropout or attention_mask is None or attention_mask.shape[-2] != 1:
        left_out = ", ".join(unknown) or "dropout, or a mask"
        raise ModelError(f"attention over trees would leave out {left_out} of {type(module).__name__}.")
    window = attention_mask.shape[-1] - 1 or None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if blocks is not None:
        return block_attention(query, key, value, blocks, scale, window), None
    assert runs is not None
    rows, heads, length, _ = query.shape
    q_THD, k_TKD, v_TKD = (own.transpose(1, 2).flatten(0, 1) for own in (query, key, value))
    return varlen_attention.varlen(q_THD, k_TKD, v_TKD, runs, scale, window).view(rows, length, heads, -1), None


# What it is given differs from batch to batch in more than numbers: compiled layers break off here.
AttentionInterface.register(OF_TREES, torch.compiler.disable(_attend))
AttentionMaskInterface.register(OF_TREES, sdpa_mask)


def layout_of(model: PreTrainedModel, device: torch.device) -> Layout:
    """How rows must look for this model on a device."""
    if why_not_shareable(model) is not None:
        return SEQUENCES
    if not takes_trees(model):
        return DENSE
    return {"cpu": BLOCKS, "cuda": RUNS}.get(device.type, DENSE)


def takes_trees(model: PreTrainedModel) -> bool:
    """Whether every layer of the model attends by whatever transformers' interface of attentions names."""
    return bool(getattr(model, "_supports_attention_backend", False))


def choose_attention(model: PreTrainedModel) -> None:
    """Gives a model the attention that can take blocks, and takes from it one that would leave out part of what its
    configuration says.

    Scaled dot-product attention has no soft cap on its scores, and transformers 5.17 gives Gemma 2 that attention all
    the same, and no word: its log-probabilities are then not the model's.
    """
    config = model.config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None) is not None and config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")
    elif why_not_shareable(model) is None and takes_trees(model):
        model.set_attn_implementation(OF_TREES)


@contextmanager
def attention_kept(model: PreTrainedModel | None) -> Iterator[None]:
    """Gives a model of somebody else's back the attention that it came with."""
    before = None if model is None else model.config.get_text_config()._attn_implementation
    try:
        yield
    finally:
        if model is not None and model.config.get_text_config()._attn_implementation != before:
            model.set_attn_implementation(before or "eager")


def why_not_shareable(model: PreTrainedModel) -> str | None:
    """Why this model must be run one sequence a row, or None where rows may hold trees.

    Sharing is sound when a token's state depends on the tokens its mask lets it see and on its position, and
    on nothing else. Layers that carry a state from column to column, or that derive positions or masks from
    the column itself, break that.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if model._is_stateful:
        return "its layers carry a state from token to token"
    if kinds - _SHAREABLE_LAYERS:
        return f"it has layers of the kind {', '.join(sorted(kinds - _SHAREABLE_LAYERS))}"
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        return "it takes no position ids"
    if config._attn_implementation not in ("sdpa", OF_TREES):
        return "its attention takes no mask of ours"
    return None
