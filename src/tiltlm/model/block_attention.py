"""Attention over the blocks of a trie, by a few small matrix products each (architecture, idea 1).

For each block: scores of its columns against the path before it and itself, softmax, values; nothing is kept for the
backward pass but queries, keys and values, so scores are made again there. Query heads that share a key head are rows
of one product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tiltlm.model.products import bfloat16_units
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
    if window is not None:
        blocks = blocks.within(window)
    out: Tensor = _BlockAttention.apply(query_RHLD, key_RKLD, value_RKLD, blocks, scale, window)  # type: ignore[no-untyped-call]
    return out


class _BlockAttention(torch.autograd.Function):
    """The columns of all rows, C = R*L, stand one after another; G query heads share a head of keys, H = K*G."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, scale: float, window: int | None
    ) -> Tensor:
        rows, heads, length, size = query.shape
        dtype = query.dtype
        if torch.is_autocast_enabled(query.device.type):
            dtype = torch.get_autocast_dtype(query.device.type)
        sums = torch.float64 if dtype is torch.float64 else torch.float32
        ctx.work = work = _Work(blocks, scale, window, heads // key.shape[1], sums)
        ctx.rows, ctx.types = rows, (query.dtype, key.dtype, value.dtype)
        with torch.autocast(query.device.type, enabled=False):
            query_HCD, key_KCD, value_KCD = (_joined(own).to(dtype) for own in (query, key, value))
            out_CHD = query_HCD.new_zeros(rows * length, heads, size)
            for block in blocks.blocks:
                out_CHD[block.start : block.end] = work.attend(query_HCD, key_KCD, value_KCD, block)
        ctx.save_for_backward(query_HCD, key_KCD, value_KCD)
        return out_CHD.view(rows, length, heads, size)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        work: _Work = ctx.work
        query_HCD, key_KCD, value_KCD = ctx.saved_tensors
        factors = query_HCD.dtype
        with torch.autocast(grad.device.type, enabled=False), bfloat16_units(wanted=factors is torch.bfloat16):
            grad_HCD = grad.flatten(0, 1).transpose(0, 1)
            # Rounded as the forward pass rounded them, and wide for their sums.
            key_KCD, value_KCD = key_KCD.to(work.sums) * work.scale, value_KCD.to(work.sums)
            grad_query = torch.zeros_like(query_HCD, dtype=work.sums)
            grad_key, grad_value = torch.zeros_like(key_KCD), torch.zeros_like(value_KCD)
            for block in work.blocks.blocks:
                keys = work.keys(key_KCD, block)
                queries, back = (work.rows(own, block, factors) for own in (query_HCD, grad_HCD))
                weights = work.softmax(queries, keys, block)
                work.add_keys(grad_value, weights.transpose(1, 2), back, block)
                slopes = torch.bmm(back, work.keys(value_KCD, block).transpose(1, 2))
                slopes = torch._softmax_backward_data(slopes, weights, -1, work.sums)
                work.put_rows(grad_query, torch.bmm(slopes, keys), block)
                work.add_keys(grad_key, slopes.transpose(1, 2), queries, block)
            slopes_by = (grad_query, grad_key.mul_(work.scale), grad_value)
            parted = (_parted(own, ctx.rows).to(dtype) for own, dtype in zip(slopes_by, ctx.types, strict=True))
            return (*parted, None, None, None)


@dataclass(frozen=True, slots=True)
class _Work:
    """What is done with single blocks.

    group: query heads that share a head of keys. sums: the type of scores, and of what the backward pass adds up.
    """

    blocks: Blocks
    scale: float
    window: int | None
    group: int
    sums: torch.dtype

    def rows(self, own_HCD: Tensor, block: Block, factors: torch.dtype) -> Tensor:
        """A block's columns of all query heads of a group below one another, shape (K, G*n, D), rounded and widened."""
        rows = own_HCD[:, block.start : block.end].to(factors).to(self.sums)
        return rows.reshape(len(own_HCD) // self.group, -1, own_HCD.shape[-1])

    def put_rows(self, total_HCD: Tensor, rows: Tensor, block: Block) -> None:
        """Where `rows` has them from."""
        total_HCD[:, block.start : block.end] = rows.view(len(total_HCD), -1, rows.shape[-1])

    def keys(self, own_KCD: Tensor, block: Block) -> Tensor:
        """What a block's columns see, shape (K, before + n, D)."""
        if block.keys is not None:
            return own_KCD.index_select(1, block.keys)
        return own_KCD[:, block.start - block.before : block.end]

    def add_keys(self, total_KCD: Tensor, left: Tensor, right: Tensor, block: Block) -> None:
        """Adds a product to what a block's columns see, in place."""
        if block.keys is not None:
            total_KCD.index_add_(1, block.keys, torch.bmm(left, right))
        else:
            total_KCD[:, block.start - block.before : block.end].baddbmm_(left, right)

    def attend(self, query_HCD: Tensor, key_KCD: Tensor, value_KCD: Tensor, block: Block) -> Tensor:
        """What a block's columns make of what they see, shape (n, H, D)."""
        queries = query_HCD[:, block.start : block.end].unflatten(0, (-1, self.group))
        keys, values = (self.keys(own, block)[:, None].expand(-1, self.group, -1, -1) for own in (key_KCD, value_KCD))
        out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=self.mask(block), scale=self.scale)
        return out.flatten(0, 1).transpose(0, 1)

    def softmax(self, queries: Tensor, keys: Tensor, block: Block) -> Tensor:
        """Attention weights of a block's columns, shape (K, G*n, before + n); keys are scaled."""
        scores = torch.bmm(queries, keys.transpose(1, 2))
        of_heads = scores.view(len(scores), self.group, block.end - block.start, -1)
        first = 0 if self.window is not None else block.before
        of_heads[..., first:] += self.mask(block)[:, first:]
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


def _joined(own_RHLD: Tensor) -> Tensor:
    """(H, C, D)."""
    return own_RHLD.transpose(0, 1).flatten(1, 2)


def _parted(own_HCD: Tensor, rows: int) -> Tensor:
    """(R, H, L, D)."""
    heads, _, size = own_HCD.shape
    return own_HCD.view(heads, rows, -1, size).transpose(0, 1)
