"""Log-probabilities of given tokens from hidden states, without ever keeping the logits (architecture, idea 3)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

CHUNK_ELEMENTS = 1 << 25
"""Most logits alive at once, but for tiles on a CPU: 128 MiB in float32."""
TILE_ELEMENTS = 1 << 22
"""Most logits alive at once on a CPU, where they are best made in pieces that its caches hold: 16 MiB."""
TILE_ROWS = 1024
"""Most hidden states that a tile of logits is made of."""


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

    def made_in(self, hidden_SD: Tensor, temperature: float = 1.0) -> Making:
        """The transform with a temperature, in the arithmetic that holds for these hidden states here."""
        dtype = hidden_SD.dtype
        if torch.is_autocast_enabled(hidden_SD.device.type):
            dtype = torch.get_autocast_dtype(hidden_SD.device.type)
        return Making(self.scale, self.softcap, temperature, dtype)


@dataclass(frozen=True, slots=True)
class Making:
    """How the logits of a chunk are made: see `LogitTransform`; and the arithmetic of the product's factors."""

    scale: float
    softcap: float | None
    temperature: float
    dtype: torch.dtype

    def logits(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Logits of one chunk as the model would give them, divided by the temperature, in at least float32."""
        logits = product(hidden, weight.T, self.dtype)
        if bias is not None:
            logits = logits + bias
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits / self.temperature if self.temperature != 1.0 else logits

    def slope(self, logits: Tensor) -> Tensor | float:
        """The derivative of these logits by what the output layer gave."""
        slope: Tensor | float = self.scale / self.temperature
        if self.softcap is not None:
            slope = slope * (1 - (logits * (self.temperature / self.softcap)).square())
        return slope


def token_logps(
    hidden_SD: Tensor, token_S: Tensor, head: nn.Linear, transform: LogitTransform, temperature: float = 1.0
) -> Tensor:
    """log softmax(logits)[token] for each hidden state, float32 (float64 for float64 weights), shape (S,).

    Logits are made a tile at a time, of some rows and some of the vocabulary, and made again in the backward pass, so
    memory is one tile whatever S and the vocabulary are. They are never rounded below float32, whatever the
    arithmetic of their factors: near 16 the steps of bfloat16 are 0.06 nats, half of the noise of a whole pass.
    """
    return _chunked(hidden_SD, token_S, head, transform, temperature, squares=False)[0]


def token_logps_and_squares(
    hidden_SD: Tensor, token_S: Tensor, head: nn.Linear, transform: LogitTransform, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """`token_logps`, and the logarithm of the sum over the vocabulary of softmax(logits)^2, without gradient; (S,).

    The second is logsumexp(2 z) - 2 logsumexp(z) of the same chunks' logits z: what the log-probability of a token that
    is drawn from the distribution comes to, taken as the logarithm of its mean probability.
    """
    logps_S, log_squares_S = _chunked(hidden_SD, token_S, head, transform, temperature, squares=True)
    assert log_squares_S is not None
    return logps_S, log_squares_S


def _chunked(
    hidden_SD: Tensor, token_S: Tensor, head: nn.Linear, transform: LogitTransform, temperature: float, squares: bool
) -> tuple[Tensor, Tensor | None]:
    made: tuple[Tensor, Tensor | None] = _ChunkedLogps.apply(  # type: ignore[no-untyped-call]
        hidden_SD, head.weight, head.bias, token_S, transform.made_in(hidden_SD, temperature), squares
    )
    return made


class _ChunkedLogps(torch.autograd.Function):
    """Forward and backward over tiles; only hidden states and log-sum-exp are kept between them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_SD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        token_S: Tensor,
        making: Making,
        squares: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.making = making
        ctx.tiles = _tiles(len(token_S), len(weight_VD), hidden_SD.device)
        dtype = torch.float64 if hidden_SD.dtype is torch.float64 else torch.float32
        own_S = hidden_SD.new_zeros(len(token_S), dtype=dtype)
        log_sum_S, log_sum_2_S = (torch.full_like(own_S, -math.inf) for _ in range(2))
        for rows, columns in ctx.tiles:
            logits = making.logits(hidden_SD[rows], *_part(weight_VD, bias_V, columns))
            place, within = _place(token_S[rows], columns)
            own_S[rows] = torch.where(within, logits.gather(-1, place).squeeze(-1), own_S[rows])
            log_sum_S[rows] = torch.logaddexp(log_sum_S[rows], torch.logsumexp(logits, dim=-1))
            if squares:
                log_sum_2_S[rows] = torch.logaddexp(log_sum_2_S[rows], torch.logsumexp(logits.mul_(2), dim=-1))
        ctx.save_for_backward(hidden_SD, weight_VD, bias_V, token_S, log_sum_S)
        if not squares:
            return own_S - log_sum_S, None
        log_squares_S = log_sum_2_S - 2 * log_sum_S
        ctx.mark_non_differentiable(log_squares_S)
        return own_S - log_sum_S, log_squares_S

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_S: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_SD, weight_VD, bias_V, token_S, log_sum_S = ctx.saved_tensors
        making: Making = ctx.making
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        # Added up over the vocabulary, so no narrower than sums are.
        sums = log_sum_S.dtype
        grad_hidden = torch.zeros_like(hidden_SD, dtype=sums) if needs_hidden else None
        grad_weight = (torch.empty_like if ctx.tiles else torch.zeros_like)(weight_VD) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V) if needs_bias else None
        for rows, columns in ctx.tiles:
            hidden, grad = hidden_SD[rows], grad_S[rows, None]
            weight, bias = _part(weight_VD, bias_V, columns)
            logits = making.logits(hidden, weight, bias)
            slope = making.slope(logits)
            # d logp / d logit_v = [v = token] - softmax_v; written over the logits to save their memory.
            delta = logits.sub_(log_sum_S[rows, None]).exp_().mul_(-grad)
            place, within = _place(token_S[rows], columns)
            delta.scatter_add_(-1, place, (grad * within[:, None]).to(delta.dtype))
            if not isinstance(slope, float) or slope != 1.0:
                delta = delta.mul_(slope)
            if grad_hidden is not None:
                add_product(grad_hidden[rows], delta, weight, making.dtype)
            if grad_weight is not None:
                add_product(grad_weight[columns], delta.T, hidden, making.dtype, onto_nothing=rows.start == 0)
            if grad_bias is not None:
                grad_bias[columns] += delta.sum(0)
        if grad_hidden is not None:
            grad_hidden = grad_hidden.to(hidden_SD.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None


def logits_alive(rows: int, columns: int, device: torch.device) -> int:
    """How many logits of so many hidden states, and a vocabulary so large, are alive at once."""
    high, wide = _tile(rows, columns, device)
    return high * wide


def _tile(rows: int, columns: int, device: torch.device) -> tuple[int, int]:
    """How many rows, and how much of the vocabulary, logits are made of at once."""
    if device.type != "cpu":
        return max(1, min(rows, CHUNK_ELEMENTS // columns)), columns
    high = max(1, min(rows, TILE_ROWS))
    return high, min(columns, max(1, TILE_ELEMENTS // high))


def _tiles(rows: int, columns: int, device: torch.device) -> list[tuple[slice, slice]]:
    """Rows and columns of the pieces in which logits are made; of those with the same columns the first rows first."""
    high, wide = _tile(rows, columns, device)
    return [
        (slice(top, min(top + high, rows)), slice(left, min(left + wide, columns)))
        for left in range(0, columns, wide)
        for top in range(0, rows, high)
    ]


def _part(weight_VD: Tensor, bias_V: Tensor | None, columns: slice) -> tuple[Tensor, Tensor | None]:
    return weight_VD[columns], None if bias_V is None else bias_V[columns]


def _place(token: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Where each row's token stands among some columns of the vocabulary, shape (rows, 1), and whether it is there."""
    place = token - columns.start
    within = (place >= 0) & (place < columns.stop - columns.start)
    return place.clamp(0, columns.stop - columns.start - 1)[:, None], within


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
        with bfloat16_units(wanted=dtype is torch.bfloat16):
            return a_MK.float() @ b_KN.float()


def add_product(total_MN: Tensor, a_MK: Tensor, b_KN: Tensor, dtype: torch.dtype, onto_nothing: bool = False) -> None:
    """Adds `product(a, b)` to the total in place, without a copy of it where the device can.

    onto_nothing: the total has no content yet, and is the product after.
    """
    if a_MK.device.type == "cpu" and dtype is torch.bfloat16:
        with torch.autocast("cpu", enabled=False), bfloat16_units(wanted=True):
            total_MN.addmm_(a_MK.float(), b_KN.float(), beta=0 if onto_nothing else 1)
    elif onto_nothing:
        total_MN.copy_(product(a_MK, b_KN, dtype))
    else:
        total_MN.add_(product(a_MK, b_KN, dtype))


@contextmanager
def bfloat16_units(wanted: bool) -> Iterator[None]:
    """Lets a CPU's float32 products use its bfloat16 units, within."""
    products = cast(Any, torch.backends.mkldnn).matmul
    before = products.fp32_precision
    products.fp32_precision = "bf16" if wanted else before
    try:
        yield
    finally:
        products.fp32_precision = before
