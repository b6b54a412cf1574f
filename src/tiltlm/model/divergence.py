"""How far the distribution of each token is from the reference's, without ever keeping the logits of either model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tiltlm.model import head as chunks
from tiltlm.model.head import LogitTransform, Making
from tiltlm.model.products import rounded_product


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceStates:
    """What the reference made of the same tokens, without gradient: hidden states, shape (S, D), and how they become
    logits."""

    hidden_SD: Tensor
    head: nn.Linear
    transform: LogitTransform


def logps_and_divergence(
    hidden_SD: Tensor, token_S: Tensor, head: nn.Linear, transform: LogitTransform, reference: ReferenceStates
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of tokens under the policy, KL(pi_ref || pi) where each stands, and the first of the reference.

        KL(pi_ref || pi) = sum over v of pi_ref(v) * (log pi_ref(v) - log pi(v))

    Logits of both models are made a chunk at a time and made again in the backward pass, so memory is one chunk of
    `head.CHUNK_ELEMENTS` logits, shared by the two.

    Returns:
        float32 (float64 for float64 weights), in nats, shape (S,) each; the first two have a gradient.
    """
    made: tuple[Tensor, Tensor, Tensor] = _ChunkedDivergence.apply(  # type: ignore[no-untyped-call]
        hidden_SD,
        head.weight,
        head.bias,
        token_S,
        transform.made_in(hidden_SD),
        reference.hidden_SD.detach(),
        reference.head.weight.detach(),
        None if reference.head.bias is None else reference.head.bias.detach(),
        reference.transform.made_in(reference.hidden_SD),
    )
    return made


class _ChunkedDivergence(torch.autograd.Function):
    """Forward and backward over chunks of S; hidden states and log-sum-exp of both models are kept between them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_SD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        token_S: Tensor,
        making: Making,
        reference_SD: Tensor,
        reference_VD: Tensor,
        reference_V: Tensor | None,
        reference_making: Making,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.making, ctx.reference_making = making, reference_making
        ctx.chunk = max(1, chunks.CHUNK_ELEMENTS // (2 * weight_VD.shape[0]))
        parts: list[tuple[Tensor, ...]] = []
        for start in range(0, len(token_S), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits = making.logits(hidden_SD[part], weight_VD, bias_V)
            own = reference_making.logits(reference_SD[part], reference_VD, reference_V)
            log_sum, own_sum = torch.logsumexp(logits, dim=-1), torch.logsumexp(own, dim=-1)
            logps, own_logps = (
                values.gather(-1, token_S[part, None]).squeeze(-1) - total
                for values, total in ((logits, log_sum), (own, own_sum))
            )
            # Of a token that the reference excludes nothing is added, whatever the policy gives it.
            apart = (own - logits).nan_to_num_(nan=0.0, neginf=0.0)
            divergence = own.sub_(own_sum[:, None]).exp_().mul_(apart).sum(-1) + (log_sum - own_sum)
            parts.append((logps, divergence, own_logps, log_sum, own_sum))
        logps_S, divergence_S, own_S, log_sum_S, own_sum_S = (torch.cat(values) for values in zip(*parts, strict=True))
        ctx.mark_non_differentiable(own_S)
        ctx.save_for_backward(
            hidden_SD, weight_VD, bias_V, token_S, log_sum_S, reference_SD, reference_VD, reference_V, own_sum_S
        )
        return logps_S, divergence_S, own_S

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_S: Tensor, divergence_grad_S: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden_SD, weight_VD, bias_V, token_S, log_sum_S, reference_SD, reference_VD, reference_V, own_sum_S = (
            ctx.saved_tensors
        )
        making: Making = ctx.making
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden_SD) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VD) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V) if needs_bias else None
        for start in range(0, len(token_S), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            grad, divergence_grad = grad_S[part, None], divergence_grad_S[part, None]
            logits = making.logits(hidden_SD[part], weight_VD, bias_V)
            own = ctx.reference_making.logits(reference_SD[part], reference_VD, reference_V)
            slope = making.slope(logits)
            # d logp / d logit_v = [v = token] - pi(v);   d KL / d logit_v = pi(v) - pi_ref(v).
            delta = logits.sub_(log_sum_S[part, None]).exp_().mul_(divergence_grad - grad)
            delta.sub_(own.sub_(own_sum_S[part, None]).exp_().mul_(divergence_grad))
            delta.scatter_add_(-1, token_S[part, None], grad.to(delta.dtype))
            delta = delta.mul_(slope)
            if grad_hidden is not None:
                grad_hidden[part] = rounded_product(delta, weight_VD, making.dtype)
            if grad_weight is not None:
                grad_weight.add_(rounded_product(delta.T, hidden_SD[part], making.dtype))
            if grad_bias is not None:
                grad_bias.add_(delta.sum(0))
        return grad_hidden, grad_weight, grad_bias, *[None] * 6
