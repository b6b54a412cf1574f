"""Attention masks of packed rows, and which models can take them (architecture, idea 1)."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tiltlm.plan.batches import MicroBatch

_SHAREABLE_LAYERS = {"full_attention", "sliding_attention"}

Mask = Tensor | dict[str, Tensor]


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


def mask_for(model: PreTrainedModel, batch: MicroBatch) -> Mask:
    """The packed batch's mask in the form this model's layers take: one mask, or one per kind of layer."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if "sliding_attention" in kinds:
        return {kind: sees(batch, window if kind == "sliding_attention" else None) for kind in kinds}
    return sees(batch, None if kinds else window)


def choose_exact_attention(model: PreTrainedModel) -> None:
    """Takes from a model an attention that would leave out part of what its configuration says.

    Scaled dot-product attention has no soft cap on its scores, and transformers 5.17 gives Gemma 2 that attention all
    the same, and no word: its log-probabilities are then not the model's.
    """
    config = model.config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None) is not None and config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")


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
    if config._attn_implementation != "sdpa":
        return "its attention takes no mask of ours"
    return None
