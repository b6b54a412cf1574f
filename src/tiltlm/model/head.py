"""Log-probabilities of given tokens from hidden states, without ever keeping the logits (architecture, idea 3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

CHUNK_ELEMENTS = 1 << 25
"""Most logits alive at once: 128 MiB in float32."""


@dataclass(frozen=True, slots=True)
class LogitTransform:
    """What a model does to its logits after the output layer: `softcap * tanh(scale * z / softcap)`.

    scale: factor on the logits (Cohere's logit_scale, the inverse of Granite's logits_scaling, 1/temperature).
    softcap: bound on the logits (Gemma's final_logit_softcapping, RecurrentGemma's logits_soft_cap), or None.
    """

    scale: float = 1.0
    softcap: float | None = None

    @staticmethod
    def of(model: PreTrainedModel) -> LogitTransform:
        """Reads the transform from a transformers configuration; absent fields mean none."""
        config = model.config.get_text_config()
        scale = getattr(config, "logit_scale", None) or 1.0
        if getattr(config, "logits_scaling", None):
            scale /= config.logits_scaling
        softcap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
        return LogitTransform(scale=scale, softcap=softcap)


def token_logps(
    hidden_SD: Tensor, token_S: Tensor, head: nn.Linear, transform: LogitTransform, temperature: float = 1.0
) -> Tensor:
    """log softmax(logits)[token] for each hidden state, float32 (float64 for float64 weights), shape (S,).

    Logits are made a chunk at a time and made again in the backward pass, so memory is one chunk of
    `CHUNK_ELEMENTS` logits whatever S and the vocabulary are. They are never rounded below float32, whatever the
    arithmetic of their factors: near 16 the steps of bfloat16 are 0.06 nats, half of the noise of a whole pass.
    """
    dtype = hidden_SD.dtype
    if torch.is_autocast_enabled(hidden_SD.device.type):
        dtype = torch.get_autocast_dtype(hidden_SD.device.type)
    logps: Tensor = _ChunkedLogps.apply(  # type: ignore[no-untyped-call]
        hidden_SD, head.weight, head.bias, token_S, transform.scale, transform.softcap, temperature, dtype
    )
    return logps


class _ChunkedLogps(torch.autograd.Function):
    """Forward and backward over chunks of S; only hidden states and log-sum-exp are kept between them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_SD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        token_S: Tensor,
        scale: float,
        softcap: float | None,
        temperature: float,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.transform = (scale, softcap, temperature, dtype)
        ctx.chunk = max(1, CHUNK_ELEMENTS // weight_VD.shape[0])
        logps, log_sums = [], []
        for hidden, token in zip(hidden_SD.split(ctx.chunk), token_S.split(ctx.chunk), strict=True):
            logits = _logits(hidden, weight_VD, bias_V, ctx.transform)
            log_sum = torch.logsumexp(logits, dim=-1)
            logps.append(logits.gather(-1, token[:, None]).squeeze(-1) - log_sum)
            log_sums.append(log_sum)
        ctx.save_for_backward(hidden_SD, weight_VD, bias_V, token_S, torch.cat(log_sums))
        return torch.cat(logps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_S: Tensor) -> tuple[Tensor | None, ...]:
        hidden_SD, weight_VD, bias_V, token_S, log_sum_S = ctx.saved_tensors
        scale, softcap, temperature, dtype = ctx.transform
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden_SD) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VD) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V) if needs_bias else None
        for start in range(0, len(token_S), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            hidden, token, grad = hidden_SD[part], token_S[part], grad_S[part, None]
            logits = _logits(hidden, weight_VD, bias_V, ctx.transform)
            slope: Tensor | float = scale / temperature
            if softcap is not None:
                slope = slope * (1 - (logits * (temperature / softcap)).square())
            # d logp / d logit_v = [v = token] - softmax_v; written over the logits to save their memory.
            delta = logits.sub_(log_sum_S[part, None]).exp_().mul_(-grad)
            delta.scatter_add_(-1, token[:, None], grad.to(delta.dtype))
            delta = delta.mul_(slope)
            if grad_hidden is not None:
                grad_hidden[part] = product(delta, weight_VD, dtype)
            if grad_weight is not None:
                add_product(grad_weight, delta.T, hidden, dtype)
            if grad_bias is not None:
                grad_bias.add_(delta.sum(0))
        return grad_hidden, grad_weight, grad_bias, None, None, None, None, None


def _logits(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    transform: tuple[float, float | None, float, torch.dtype],
) -> Tensor:
    """Logits of one chunk as the model would give them, divided by the temperature, in at least float32."""
    scale, softcap, temperature, dtype = transform
    logits = product(hidden, weight.T, dtype)
    if bias is not None:
        logits = logits + bias
    if scale != 1.0:
        logits = logits * scale
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    return logits / temperature if temperature != 1.0 else logits


def product(a_MK: Tensor, b_KN: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix product in the arithmetic of `dtype`, summed and returned in at least float32, shape (M, N).

    On a CPU with bfloat16 units float32 factors are rounded on their way into them, and sums leave them as they are;
    on a CPU without, nothing is rounded. A GPU is given rounded factors and asked for float32 sums.
    """
    with torch.autocast(a_MK.device.type, enabled=False):
        if dtype not in (torch.bfloat16, torch.float16):
            return a_MK.to(dtype) @ b_KN.to(dtype)
        if a_MK.device.type == "cuda":
            return torch.mm(a_MK.to(dtype), b_KN.to(dtype), out_dtype=torch.float32)
        with _bfloat16_units(wanted=dtype is torch.bfloat16):
            return a_MK.float() @ b_KN.float()


def add_product(total_MN: Tensor, a_MK: Tensor, b_KN: Tensor, dtype: torch.dtype) -> None:
    """Adds `product(a, b)` to the total in place, without a copy of it where the device can."""
    if a_MK.device.type == "cpu" and dtype is torch.bfloat16:
        with torch.autocast("cpu", enabled=False), _bfloat16_units(wanted=True):
            total_MN.addmm_(a_MK.float(), b_KN.float())
    else:
        total_MN.add_(product(a_MK, b_KN, dtype))


@contextmanager
def _bfloat16_units(wanted: bool) -> Iterator[None]:
    """Lets a CPU's float32 products use its bfloat16 units, within."""
    products = cast(Any, torch.backends.mkldnn).matmul
    before = products.fp32_precision
    products.fp32_precision = "bf16" if wanted else before
    try:
        yield
    finally:
        products.fp32_precision = before
