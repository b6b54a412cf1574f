"""Attention over a trie's runs by PyTorch's kernel for sequences of uneven lengths: no mask, no arithmetic for what is
not seen.

`torch.nn.attention.varlen.varlen_attn` is FlashAttention over segments, causal from the bottom right. One call a layer
serves all rows (see `plan/runs.py`): queries as they lie, keys and values gathered along each run's path.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import varlen as torch_varlen
from transformers import PreTrainedModel

from tiltlm.plan.runs import Runs

_HALF = (torch.bfloat16, torch.float16)
_MOST_HEAD_SIZE = 256


def varlen(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, runs: Runs, scale: float, window: int | None) -> Tensor:
    """Attention of all columns of packed rows, each over its path from the root.

    Args:
        q_THD: queries of the flattened columns, T of them, H heads of size D.
        k_TKD, v_TKD: keys and values, K heads, a divisor of H: head h of the queries reads head h * K // H of these.
        runs: of the same rows, on the same device.
        scale: of the scores.
        window: how many positions a column sees, itself included; None: all.

    Returns:
        Shape (T, H, D), in the type of the values. On CUDA that must be a half-precision type; elsewhere the same
        arithmetic is done run by run, slowly, in any type.
    """
    q_THD, k_TKD = q_THD.to(v_TKD.dtype), k_TKD.to(v_TKD.dtype)  # rotary embedding leaves these in float32
    keys, values = gathered(k_TKD, runs.key_at_K), gathered(v_TKD, runs.key_at_K)
    attend = _kernel if q_THD.device.type == "cuda" else run_by_run
    return attend(q_THD, keys, values, runs, scale, window)


def _kernel(q_THD: Tensor, keys: Tensor, values: Tensor, runs: Runs, scale: float, window: int | None) -> Tensor:
    grouped: dict[str, Any] = {}
    if keys.shape[1] != q_THD.shape[1]:
        if "enable_gqa" in _parameters():
            grouped["enable_gqa"] = True
        else:
            keys, values = (each.repeat_interleave(q_THD.shape[1] // each.shape[1], dim=1) for each in (keys, values))
    attended = torch_varlen.varlen_attn(
        q_THD,
        keys,
        values,
        runs.query_bounds,
        runs.key_bounds,
        runs.longest_run,
        runs.longest_path,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        **grouped,
    )
    assert isinstance(attended, Tensor)
    return attended


def run_by_run(q_THD: Tensor, keys: Tensor, values: Tensor, runs: Runs, scale: float, window: int | None) -> Tensor:
    """What `varlen_attn` computes, in plain PyTorch: the meaning of its arguments, for devices without the kernel."""
    group, attended = q_THD.shape[1] // keys.shape[1], []
    for first, end, path_first, path_end in zip(
        runs.query_bounds[:-1].tolist(),
        runs.query_bounds[1:].tolist(),
        runs.key_bounds[:-1].tolist(),
        runs.key_bounds[1:].tolist(),
        strict=True,
    ):
        own, path = slice(first, end), slice(path_first, path_end)
        k, v = (each[path].repeat_interleave(group, dim=1) for each in (keys, values))
        j = torch.arange(path_end - path_first, device=q_THD.device)
        i = j[len(j) - (end - first) :, None]
        seen = j <= i if window is None else (j <= i) & (j > i - window)
        scores = torch.einsum("ihd,jhd->hij", q_THD[own], k) * scale
        attended.append(torch.einsum("hij,jhd->ihd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v))
    return torch.cat(attended)


def gathered(columns_TKD: Tensor, at_K: Tensor) -> Tensor:
    """Keys or values of the columns that the paths name, shape (paths' columns, K, D)."""
    made: Tensor = _Gathered.apply(columns_TKD, at_K)  # type: ignore[no-untyped-call]
    return made


class _Gathered(torch.autograd.Function):
    """Rows of a table, whose gradients are added up in at least float32: a prompt's column stands on the path of each
    of its completions, and a system prompt's on those of all."""

    @staticmethod
    def forward(ctx: Any, columns_TKD: Tensor, at_K: Tensor) -> Tensor:
        ctx.save_for_backward(at_K)
        ctx.columns, ctx.dtype = len(columns_TKD), columns_TKD.dtype
        return columns_TKD.index_select(0, at_K)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (at_K,) = ctx.saved_tensors
        wide = grad.to(torch.promote_types(grad.dtype, torch.float32))
        total = wide.new_zeros((ctx.columns, *grad.shape[1:]))
        return total.index_add_(0, at_K, wide).to(ctx.dtype), None


def why_no_varlen(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernel cannot serve this model here, or None where it can; a dense mask serves all.

    Args:
        dtype: the arithmetic of the forward pass, that of autocast where there is one.
    """
    if device.type != "cuda":
        return f"it runs on CUDA, not on the {device.type}"
    if dtype not in _HALF:
        return f"it computes in half precision, not in {str(dtype).removeprefix('torch.')}"
    if not {"scale", "window_size"} <= _parameters():
        return "this version of PyTorch has another form of it"
    if not torch.backends.cuda.is_flash_attention_available() or torch.cuda.get_device_capability(device) < (8, 0):
        return "this GPU, or this build of PyTorch, has no FlashAttention"
    size = head_size(model)
    if size is None or size > _MOST_HEAD_SIZE or size % 8:
        return f"its heads must have a size that is a multiple of 8, up to {_MOST_HEAD_SIZE}, and these have {size}"
    return None


def head_size(model: PreTrainedModel) -> int | None:
    """The size of an attention head; None where the configuration does not tell."""
    config = model.config.get_text_config()
    told: int | None = getattr(config, "head_dim", None)
    if told:
        return told
    hidden, heads = getattr(config, "hidden_size", None), getattr(config, "num_attention_heads", None)
    return hidden // heads if hidden and heads else None


@cache
def _parameters() -> frozenset[str]:
    """What `varlen_attn` of this version of PyTorch takes: `enable_gqa` came later than the rest."""
    return frozenset(inspect.signature(torch_varlen.varlen_attn).parameters)
