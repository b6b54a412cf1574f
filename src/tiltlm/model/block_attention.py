"""Attention over the blocks of a trie, by a few small matrix products each (architecture, idea 1).

For each block: scores of its columns against the path before it and itself, softmax, values; nothing is kept for the
backward pass but queries, keys and values, so scores are made again there. Query heads that share a key head are rows
of one product.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tiltlm.model.head import bfloat16_units
from tiltlm.plan.blocks import Block, Blocks


def block_attention(
    query_RHLD: Tensor, key_RKLD: Tensor, value_RKLD: Tensor, blocks: Blocks, scale: float, window: int | None
) -> Tensor:
    """softmax(scale q k^T) v where a column sees its path from the root and itself, and nothing else.

    Scores are float32 (float64 for float64 inputs), whatever the arithmetic of the products' factors: autocast's, where
    it is on.

    Args:
        query_RHLD, key_RKLD, value_RKLD: R rows, H query heads and K heads of keys, H a multiple of K.
        window: positions that a column sees back, itself included; None: all.

    Returns:
        Shape (R, L, H, D), in the type of autocast where it is on. Padding is zero.
    """
    if window is not None and window >= blocks.longest:
        window = None
    out: Tensor = _BlockAttention.apply(query_RHLD, key_RKLD, value_RKLD, blocks, scale, window)  # type: ignore[no-untyped-call]
    return out


class _BlockAttention(torch.autograd.Function):
    """The columns of all rows, C = R*L, stand one after another; G query heads share a head of keys."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, scale: float, window: int | None
    ) -> Tensor:
        rows = query.shape[0]
        dtype = query.dtype
        if torch.is_autocast_enabled(query.device.type):
            dtype = torch.get_autocast_dtype(query.device.type)
        ctx.work = _Work(blocks, window, torch.float64 if dtype is torch.float64 else torch.float32)
        ctx.scale, ctx.rows, ctx.types = scale, rows, (query.dtype, key.dtype, value.dtype)
        with torch.autocast(query.device.type, enabled=False):
            query_KCGD = _packed_query(query, key.shape[1], dtype, scale)
            key_KCD, value_KCD = _packed(key, dtype), _packed(value, dtype)
            out_KCGD = torch.zeros_like(query_KCGD)
            for block in blocks.blocks:
                ctx.work.attend(query_KCGD, key_KCD, value_KCD, block, out_KCGD)
        ctx.save_for_backward(query_KCGD, key_KCD, value_KCD)
        return _unpacked(out_KCGD, rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, work, scale = ctx.rows, ctx.work, ctx.scale
        saved = ctx.saved_tensors
        factors = saved[0].dtype
        with torch.autocast(grad.device.type, enabled=False), bfloat16_units(wanted=factors is torch.bfloat16):
            # Rounded as the forward pass rounded them, and widened once for all blocks.
            query_KCGD, key_KCD, value_KCD = (own.to(work.sums) for own in saved)
            grad_KCGD = _packed_query(grad.transpose(1, 2), key_KCD.shape[0], factors).to(work.sums)
            grad_query = torch.zeros_like(query_KCGD)
            grad_key, grad_value = torch.zeros_like(key_KCD), torch.zeros_like(value_KCD)
            for block in work.blocks.blocks:
                queries, keys = work.rows(query_KCGD, block), work.keys(key_KCD, block)
                back = work.rows(grad_KCGD, block)
                weights = work.softmax(queries, keys, block)
                work.add_keys(grad_value, weights.transpose(1, 2), back, block)
                slopes = torch.bmm(back, work.keys(value_KCD, block).transpose(1, 2))
                slopes = torch._softmax_backward_data(slopes, weights, -1, work.sums)
                torch.bmm(slopes, keys, out=work.rows(grad_query, block))
                work.add_keys(grad_key, slopes.transpose(1, 2), queries, block)
            query_type, key_type, value_type = ctx.types
            return (
                _unpacked(grad_query.mul_(scale), rows).transpose(1, 2).to(query_type),
                _unpacked_keys(grad_key, rows).to(key_type),
                _unpacked_keys(grad_value, rows).to(value_type),
                None,
                None,
                None,
            )


class _Work:
    """What is done with single blocks; `sums` is the type of scores and of what the backward pass adds up."""

    def __init__(self, blocks: Blocks, window: int | None, sums: torch.dtype) -> None:
        self.blocks, self.window, self.sums = blocks, window, sums

    def rows(self, packed_KCGD: Tensor, block: Block) -> Tensor:
        """A block's columns, one row for each query head of a group, shape (K, n*G, D); a view."""
        return packed_KCGD[:, block.start : block.end].flatten(1, 2)

    def keys(self, packed_KCD: Tensor, block: Block) -> Tensor:
        """What a block's columns see, shape (K, before + n, D)."""
        if block.keys is not None:
            return packed_KCD.index_select(1, block.keys)
        return packed_KCD[:, block.start - block.before : block.end]

    def add_keys(self, total_KCD: Tensor, left: Tensor, right: Tensor, block: Block) -> None:
        """Adds a product to what a block's columns see, in place."""
        if block.keys is not None:
            total_KCD.index_add_(1, block.keys, torch.bmm(left, right))
        else:
            total_KCD[:, block.start - block.before : block.end].baddbmm_(left, right)

    def attend(self, query_KCGD: Tensor, key_KCD: Tensor, value_KCD: Tensor, block: Block, out_KCGD: Tensor) -> None:
        """Writes what a block's columns make of what they see."""
        queries = query_KCGD[:, block.start : block.end].transpose(1, 2)
        keys, values = (
            self.keys(own, block)[:, None].expand(-1, queries.shape[1], -1, -1) for own in (key_KCD, value_KCD)
        )
        out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=self.mask(block), scale=1.0)
        out_KCGD[:, block.start : block.end] = out.transpose(1, 2)

    def softmax(self, queries: Tensor, keys: Tensor, block: Block) -> Tensor:
        """Attention weights of a block's columns, shape (K, n*G, before + n)."""
        scores = torch.bmm(queries, keys.transpose(1, 2))
        columns = block.end - block.start
        own = scores.view(len(scores), columns, queries.shape[1] // columns, -1)
        hidden = 0 if self.window is not None else block.before
        own[..., hidden:] += self.mask(block)[:, None, hidden:]
        return torch.softmax(scores, -1)

    def mask(self, block: Block) -> Tensor:
        """What is added to a block's scores, -inf where a column does not see, shape (n, before + n)."""
        mask = block.mask
        if self.window is not None:
            own = self.blocks.positions[block.start : block.end]
            seen = self.blocks.positions[block.start - block.before : block.end]
            if block.keys is not None:
                seen = self.blocks.positions[block.keys]
            mask = mask.masked_fill(own[:, None] - seen[None, :] >= self.window, -math.inf)
        return mask.to(self.sums)  # torch 2.13 misreads a float32 mask beside float64 scores


def _packed_query(query_RHLD: Tensor, groups: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """(K, C, G, D): query heads of a group stand beside each other in each column. Scaled, and then rounded once."""
    rows, heads, length, size = query_RHLD.shape
    packed = query_RHLD.new_empty((groups, rows, length, heads // groups, size), dtype=dtype)
    split = query_RHLD.view(rows, groups, heads // groups, length, size)
    torch.mul(split.permute(1, 0, 3, 2, 4), scale, out=packed)
    return packed.flatten(1, 2)


def _packed(key_RKLD: Tensor, dtype: torch.dtype) -> Tensor:
    """(K, C, D)."""
    rows, heads, length, size = key_RKLD.shape
    packed = key_RKLD.new_empty((heads, rows, length, size), dtype=dtype)
    return packed.copy_(key_RKLD.transpose(0, 1)).flatten(1, 2)


def _unpacked(packed_KCGD: Tensor, rows: int) -> Tensor:
    """(R, L, H, D)."""
    _, columns, _, size = packed_KCGD.shape
    return packed_KCGD.transpose(0, 1).reshape(rows, columns // rows, -1, size)


def _unpacked_keys(packed_KCD: Tensor, rows: int) -> Tensor:
    """(R, K, L, D)."""
    heads, columns, size = packed_KCD.shape
    return packed_KCD.view(heads, rows, columns // rows, size).transpose(0, 1)
