"""Attention over the blocks of a trie, by a few small matrix products each (architecture, idea 1).

For each block: scores of its columns against the path before it and itself, softmax, values; nothing is kept for the
backward pass but queries, keys and values, so scores are made again there. Query heads that share a key head are rows
of one product.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tiltlm.model.head import bfloat16_units
from tiltlm.plan.blocks import WHOLE, Block, Blocks

_CAUSAL = torch.full((WHOLE, WHOLE), -math.inf).triu_(1)


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
        ctx.work = _Work(blocks, window, torch.float64 if dtype is torch.float64 else torch.float32, dtype)
        ctx.scale, ctx.rows, ctx.types = scale, rows, (query.dtype, key.dtype, value.dtype)
        with torch.autocast(query.device.type, enabled=False), bfloat16_units(wanted=dtype is torch.bfloat16):
            # Scaled before it is rounded, so that it is rounded once.
            query_KCGD = _packed_query(query * scale, key.shape[1]).to(dtype)
            key_KCD, value_KCD = (_packed(own).to(dtype).contiguous() for own in (key, value))
            out_KCGD = torch.zeros_like(query_KCGD)
            for block in blocks.blocks:
                queries = ctx.work.rows(query_KCGD, block)
                weights = ctx.work.softmax(queries, ctx.work.keys(key_KCD, block), block)
                seen = torch.bmm(weights, ctx.work.keys(value_KCD, block))
                out_KCGD[:, block.start : block.end] = seen.view_as(out_KCGD[:, block.start : block.end])
        ctx.save_for_backward(query_KCGD, key_KCD, value_KCD)
        return _unpacked(out_KCGD, rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query_KCGD, key_KCD, value_KCD = ctx.saved_tensors
        rows, work, scale = ctx.rows, ctx.work, ctx.scale
        with (
            torch.autocast(grad.device.type, enabled=False),
            bfloat16_units(wanted=work.factors is torch.bfloat16),
        ):
            grad_KCGD = _packed_query(grad.transpose(1, 2), key_KCD.shape[0]).to(work.factors)
            grad_query = torch.zeros_like(query_KCGD, dtype=work.sums)
            grad_key, grad_value = (torch.zeros_like(own, dtype=work.sums) for own in (key_KCD, value_KCD))
            for block in work.blocks.blocks:
                queries, keys = work.rows(query_KCGD, block), work.keys(key_KCD, block)
                back = work.rows(grad_KCGD, block)
                weights = work.softmax(queries, keys, block)
                work.add_keys(grad_value, torch.bmm(weights.transpose(1, 2), back), block)
                slopes = torch.bmm(back, work.keys(value_KCD, block).transpose(1, 2))
                slopes = torch._softmax_backward_data(slopes, weights, -1, work.sums)
                own = grad_query[:, block.start : block.end]
                own.copy_(torch.bmm(slopes, keys).view_as(own))
                work.add_keys(grad_key, torch.bmm(slopes.transpose(1, 2), queries), block)
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
    """What is done with single blocks. `factors` is the type of what is multiplied, `sums` of what comes of it."""

    def __init__(self, blocks: Blocks, window: int | None, sums: torch.dtype, factors: torch.dtype) -> None:
        self.blocks, self.window, self.sums, self.factors = blocks, window, sums, factors

    def rows(self, packed_KCGD: Tensor, block: Block) -> Tensor:
        """A block's columns, one row for each query head of a group, shape (K, n*G, D)."""
        own = packed_KCGD[:, block.start : block.end]
        return own.to(self.sums).flatten(1, 2)

    def keys(self, packed_KCD: Tensor, block: Block) -> Tensor:
        """What a block's columns see, shape (K, before + n, D)."""
        if block.keys is not None:
            return packed_KCD.index_select(1, block.keys).to(self.sums)
        return packed_KCD[:, block.start - block.before : block.end].to(self.sums)

    def add_keys(self, total_KCD: Tensor, own: Tensor, block: Block) -> None:
        """Adds to what a block's columns see, in place."""
        if block.keys is not None:
            total_KCD.index_add_(1, block.keys, own)
        else:
            total_KCD[:, block.start - block.before : block.end].add_(own)

    def softmax(self, queries: Tensor, keys: Tensor, block: Block) -> Tensor:
        """Attention weights of a block's columns, shape (K, n*G, before + n)."""
        scores = torch.bmm(queries, keys.transpose(1, 2))
        columns = block.end - block.start
        group = queries.shape[1] // columns
        inner = scores.view(len(scores), columns, group, -1)[..., block.before :]
        if block.inner is None:
            inner += _CAUSAL[:columns, None, :columns]
        else:
            inner.masked_fill_(block.inner.logical_not()[:, None, :], -math.inf)
        if self.window is not None:
            self._close(scores.view(len(scores), columns, group, -1), block)
        return torch.softmax(scores, -1)

    def _close(self, scores: Tensor, block: Block) -> None:
        """Takes out of a block's scores what is further back than the window."""
        assert self.window is not None
        own = self.blocks.positions[block.start : block.end]
        seen = self.blocks.positions[block.start - block.before : block.end]
        if block.keys is not None:
            seen = self.blocks.positions[block.keys]
        scores.masked_fill_((own[:, None] - seen[None, :] >= self.window)[:, None, :], -math.inf)


def _packed_query(query_RHLD: Tensor, groups: int) -> Tensor:
    """(K, C, G, D): the query heads of a group stand beside each other in each column."""
    rows, heads, length, size = query_RHLD.shape
    split = query_RHLD.view(rows, groups, heads // groups, length, size)
    return split.permute(1, 0, 3, 2, 4).reshape(groups, rows * length, heads // groups, size)


def _packed(key_RKLD: Tensor) -> Tensor:
    """(K, C, D)."""
    rows, heads, length, size = key_RKLD.shape
    return key_RKLD.transpose(0, 1).reshape(heads, rows * length, size)


def _unpacked(packed_KCGD: Tensor, rows: int) -> Tensor:
    """(R, L, H, D)."""
    _, columns, _, size = packed_KCGD.shape
    return packed_KCGD.transpose(0, 1).reshape(rows, columns // rows, -1, size)


def _unpacked_keys(packed_KCD: Tensor, rows: int) -> Tensor:
    """(R, K, L, D)."""
    heads, columns, size = packed_KCD.shape
    return packed_KCD.view(heads, rows, columns // rows, size).transpose(0, 1)
