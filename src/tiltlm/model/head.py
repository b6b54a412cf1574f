"""Log-probabilities of given tokens from hidden states; of logits a bounded part is alive (architecture, idea 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tiltlm.model.products import product, rounded_product

CHUNK_ELEMENTS = 1 << 25
"""Most logits alive at once, but for tiles on a CPU: 128 MiB in float32."""
TILE_ELEMENTS = 1 << 22
"""Most logits alive at once on a CPU, where they are best made in pieces that its caches hold: 16 MiB."""
TILE_ROWS = 1024
"""Most hidden states that a tile of logits is made of."""
KEPT_ELEMENTS = 1 << 26
"""Most weights of softmax kept for the backward pass, 128 MiB in bfloat16; those of further tiles are made again."""
FAR = 40.0
"""Nats that a tile's largest logit may lie below the log-sum-exp before it is taken to lie there: e^-40 is nothing."""


@dataclass(frozen=True, slots=True)
class LogitTransform:
    """What a model does to its logits after the output layer: `softcap * tanh(scale * z / softcap) / temperature`.

    scale: factor on the logits (Cohere's logit_scale, the inverse of Granite's logits_scaling).
    softcap: bound on the logits (Gemma's final_logit_softcapping, RecurrentGemma's logits_soft_cap), or None.
    temperature: at which the model is meant, beside any that is asked for: not of the architecture, see
        `Scorer.at_temperature`.
    """

    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0

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
        return Making(self.scale, self.softcap, self.temperature * temperature, dtype)


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
        return self.after(logits if bias is None else logits + bias)

    def after(self, logits: Tensor) -> Tensor:
        """The same of what the output layer gave, which is in at least float32."""
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

    Logits are made a tile at a time, of some rows and some of the vocabulary. What their softmax is made of is kept for
    the backward pass, in the arithmetic of the factors and up to `KEPT_ELEMENTS`; beyond that it is made again, so
    memory is bounded whatever S and the vocabulary are. Logits are never rounded below float32, whatever the
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
    making = transform.made_in(hidden_SD, temperature)
    keeps = torch.is_grad_enabled() and (hidden_SD.requires_grad or head.weight.requires_grad)
    room = KEPT_ELEMENTS if keeps and making.softcap is None else 0
    made: tuple[Tensor, Tensor | None] = _ChunkedLogps.apply(  # type: ignore[no-untyped-call]
        hidden_SD, head.weight, head.bias, token_S, making, room, squares
    )
    return made


class _ChunkedLogps(torch.autograd.Function):
    """Forward and backward over tiles; hidden states, log-sum-exp and the first tiles' weights are kept between them.

    The weights of a tile are exp(z - t) for logits z, with t the largest of a row: what is still to be multiplied by
    exp(t - log-sum-exp), a number a row, which the backward pass puts on the smaller factor of its products. From those
    that are kept the own token's one is taken.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_SD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        token_S: Tensor,
        making: Making,
        room: int,
        squares: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.making = making
        ctx.tiles = _tiles(len(token_S), len(weight_VD), hidden_SD.device)
        dtype = torch.float64 if hidden_SD.dtype is torch.float64 else torch.float32
        own_S = hidden_SD.new_zeros(len(token_S), dtype=dtype)
        log_sum_S, log_sum_2_S = (torch.full_like(own_S, -math.inf) for _ in range(2))
        kept: list[Tensor] = []
        for rows, columns in ctx.tiles:
            logits = making.logits(hidden_SD[rows], *_part(weight_VD, bias_V, columns))
            place, within = _place(token_S[rows], columns)
            own_S[rows] = torch.where(within, logits.gather(-1, place).squeeze(-1), own_S[rows])
            top = logits.amax(-1, keepdim=True).clamp_(min=torch.finfo(dtype).min)
            weights = logits.sub_(top).exp_()
            top_S = top.squeeze(-1)
            log_sum_S[rows] = torch.logaddexp(log_sum_S[rows], weights.sum(-1).log_().add_(top_S))
            if squares:
                log_norm_S = torch.linalg.vector_norm(weights, dim=-1).log_()
                log_sum_2_S[rows] = torch.logaddexp(log_sum_2_S[rows], log_norm_S.add_(top_S).mul_(2))
            room -= weights.numel()
            if room >= 0:
                kept += [weights.to(making.dtype), top]
        for (rows, columns), weights, top in zip(ctx.tiles, kept[::2], kept[1::2], strict=False):
            _take_own(weights, _share(top, log_sum_S[rows]), own_S[rows] - log_sum_S[rows], token_S[rows], columns)
        ctx.save_for_backward(hidden_SD, weight_VD, bias_V, token_S, log_sum_S, *kept)
        if not squares:
            return own_S - log_sum_S, None
        log_squares_S = log_sum_2_S - 2 * log_sum_S
        ctx.mark_non_differentiable(log_squares_S)
        return own_S - log_sum_S, log_squares_S

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_S: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_SD, weight_VD, bias_V, token_S, log_sum_S, *kept = ctx.saved_tensors
        making: Making = ctx.making
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        # Added up over the vocabulary, so no narrower than sums are.
        grad_hidden = torch.zeros_like(hidden_SD, dtype=log_sum_S.dtype) if needs_hidden else None
        grad_weight = (torch.empty_like if ctx.tiles else torch.zeros_like)(weight_VD) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V) if needs_bias else None
        for number, (rows, columns) in enumerate(ctx.tiles):
            hidden, grad = hidden_SD[rows], grad_S[rows, None]
            weight, bias = _part(weight_VD, bias_V, columns)
            # d logp / d logit_v = [v = token] - softmax_v, here the product of `delta` and of a number a row.
            if 2 * number < len(kept):
                delta, top = kept[2 * number : 2 * number + 2]
                factor = _share(top, log_sum_S[rows]).mul_(grad).mul_(-making.scale / making.temperature)
            else:
                logits = making.logits(hidden, weight, bias)
                slope = making.slope(logits)
                delta = logits.sub_(log_sum_S[rows, None]).exp_()
                place, within = _place(token_S[rows], columns)
                delta.scatter_add_(-1, place, -within[:, None].to(delta.dtype))
                delta, factor = delta.mul_(slope), -grad
            if grad_hidden is not None:
                grad_hidden[rows].addcmul_(rounded_product(delta, weight, making.dtype), factor)
            if grad_weight is not None:
                own = rounded_product(delta.T, hidden * factor, making.dtype)
                (grad_weight[columns].copy_ if rows.start == 0 else grad_weight[columns].add_)(own)
            if grad_bias is not None:
                grad_bias[columns] += rounded_product(delta.T, factor, making.dtype).squeeze(-1)
        if grad_hidden is not None:
            grad_hidden = grad_hidden.to(hidden_SD.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


def _share(top: Tensor, log_sum: Tensor) -> Tensor:
    """What a tile's weights are to be multiplied by, a number a row, shape (rows, 1), for their largest logits."""
    return (top - log_sum[:, None]).clamp_(min=-FAR).exp_()


def _take_own(weights: Tensor, share: Tensor, logp: Tensor, token: Tensor, columns: slice) -> None:
    """Takes the own token's one from a tile's weights, in place: from a softmax near one before anything is rounded."""
    place, within = _place(token, columns)
    less = torch.expm1(logp)[:, None].div_(share).to(weights.dtype)
    weights.scatter_(-1, place, torch.where(within[:, None], less, weights.gather(-1, place)))


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
