"""RMSNorm as one step of the graph: it keeps its input alone, and gives what the next product takes.

Written with elementwise operations a norm is several of them with their slopes, keeps more than one tensor of its
input's size, and under autocast its float32 output is rounded once for each projection that reads it. Here it is one
function with its derivative by hand, which rounds once. RMSNorm: arXiv 1910.07467, equation 4.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

TRIED_ROWS = 3
"""Random rows on which a norm of the model must give what the formula gives, to be taken for one."""


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """weight * x / sqrt(mean(x^2) + epsilon) over the last dimension, rounded to `dtype` at the end."""
    out: Tensor = _RMSNorm.apply(x, weight, epsilon, dtype)  # type: ignore[no-untyped-call]
    return out


def _forward(epsilon: float, shift: float, module: nn.Module, x: Tensor) -> Tensor:
    """By `rms_norm` where its input has the type of the weight; what is narrower is the module's own to widen."""
    norm: Any = module
    if x.dtype is not norm.weight.dtype:
        narrow: Tensor = type(norm).forward(norm, x)
        return narrow
    kind, dtype = x.device.type, x.dtype
    if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind).itemsize < x.itemsize:
        dtype = torch.get_autocast_dtype(kind)
    return rms_norm(x, norm.weight + shift if shift else norm.weight, epsilon, dtype)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        mean = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        inverse = mean.add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return torch.mul(x * inverse, weight, out=torch.empty_like(x, dtype=dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        # With i = inverse, y = x i w: dw = sum of g x i, dx = i g w - x i^3 mean(g x w). Each pass over what is as
        # large as x counts, so two of the sums are products of one matrix with a vector.
        products = (grad * x).flatten(0, -2)
        grad_weight = inverse.flatten() @ products if ctx.needs_input_grad[1] else None
        mean = (products @ weight).view_as(inverse).div_(x.shape[-1])
        grad_x = torch.mul(grad, weight).mul_(inverse).addcmul_(x, mean.mul_(inverse.pow(3)), value=-1)
        return grad_x, grad_weight, None, None


@torch.no_grad()
def as_fused_norm(module: nn.Module, width: int) -> Callable[[nn.Module, Tensor], Tensor] | None:
    """What computes the module, if it is an RMSNorm of this width: has one weight of the width, and on random rows
    gives what the formula gives. Else None."""
    parameters = dict(module.named_parameters())
    weight = parameters.get("weight")
    if list(parameters) != ["weight"] or weight is None or weight.shape != (width,):
        return None
    epsilon = next((getattr(module, name) for name in ("variance_epsilon", "eps") if hasattr(module, name)), None)
    if isinstance(epsilon, float) and weight.is_meta:  # nothing to try it on, and nothing that could come out wrong
        return functools.partial(_forward, epsilon, 0.0) if type(module).__name__.endswith("RMSNorm") else None
    if not isinstance(epsilon, float) or weight.dtype not in (torch.float32, torch.float64):
        return None
    generator = torch.Generator().manual_seed(0)
    # Small rows too, of which epsilon is a part.
    rows = torch.randn(TRIED_ROWS, width, generator=generator, dtype=weight.dtype)
    rows = rows.mul_(torch.tensor([[1.0], [1e-2], [1e-3]])).to(weight.device)
    given = module(rows)
    for shift in (0.0, 1.0):
        wanted = rms_norm(rows, weight + shift, epsilon, weight.dtype)
        if given.shape == wanted.shape and torch.allclose(given, wanted, rtol=1e-5, atol=1e-6):
            return functools.partial(_forward, epsilon, shift)
    return None
