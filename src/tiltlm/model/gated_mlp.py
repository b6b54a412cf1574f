"""The gated feed-forward layer as one step of the graph: it keeps its two projections alone.

down(activation(gate) * up), written as operations, keeps what the activation gives and the product beside its factors:
four tensors of the inner width, which are most of what a layer keeps. Two of them are quickly made again where the
backward pass wants them. Gated linear units: arXiv 2002.05202, equation 6.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TRIED_ROWS = 3
"""Random rows on which a layer must give what the formula gives, to be taken for one."""

Activation = Callable[[Tensor], Tensor]


def gated_product(gate: Tensor, up: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    """(activation(gate) * up) @ weight.T + bias, all of one type.

    Args:
        gate, up: shape (..., I). weight, bias: of the projection back, shapes (D, I) and (D,).
        activation: works on single elements.
    """
    out: Tensor = _GatedProduct.apply(gate, up, weight, bias, activation)  # type: ignore[no-untyped-call]
    return out


def _forward(activation: Activation, module: nn.Module, x: Tensor) -> Tensor:
    layer: Any = module
    down = layer.down_proj
    # Adapters, and weights of fewer bits, compute the projection their own way.
    if type(down) is not nn.Linear or "forward" in vars(down) or not torch.is_grad_enabled():
        stock: Tensor = type(layer).forward(layer, x)
        return stock
    gate, up = layer.gate_proj(x), layer.up_proj(x)
    weight, bias = (None if own is None else own.to(up.dtype) for own in (down.weight, down.bias))
    return gated_product(gate, up, weight, bias, activation)


class _GatedProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, up: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation
    ) -> Tensor:
        ctx.activation = activation
        ctx.save_for_backward(gate, up, weight)
        with torch.autocast(gate.device.type, enabled=False):
            return F.linear(activation(gate) * up, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        needs_gate, needs_up, needs_weight, needs_bias, _ = ctx.needs_input_grad
        grad_weight = None
        with torch.autocast(grad.device.type, enabled=False):
            with torch.enable_grad():
                gate = gate.detach().requires_grad_()
                opened = ctx.activation(gate)
            if needs_weight:
                grad_weight = grad.flatten(0, -2).T @ (opened.detach() * up).flatten(0, -2)
            back = grad @ weight if needs_gate or needs_up else None
            grad_up = back * opened.detach() if back is not None and needs_up else None
            grad_gate = torch.autograd.grad(opened, gate, back.mul_(up))[0] if back is not None and needs_gate else None
            grad_bias = grad.flatten(0, -2).sum(0) if needs_bias else None
        return grad_gate, grad_up, grad_weight, grad_bias, None


@torch.no_grad()
def as_gated_mlp(module: nn.Module, width: int) -> Callable[[nn.Module, Tensor], Tensor] | None:
    """What computes the module, if it is a gated feed-forward layer of this width; else None."""
    projections = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    activation = getattr(module, "act_fn", None)
    if not all(isinstance(own, nn.Linear) for own in projections) or not callable(activation):
        return None
    gate, up, down = projections
    assert isinstance(gate, nn.Linear) and isinstance(up, nn.Linear) and isinstance(down, nn.Linear)
    if gate.in_features != width or down.out_features != width or gate.out_features != down.in_features:
        return None
    found = functools.partial(_forward, activation)
    weight = down.weight
    if weight.is_meta:  # nothing to try it on, and nothing that could come out wrong
        return found if type(module).__name__.endswith("MLP") else None
    if not weight.is_floating_point() or type(down) is not nn.Linear:
        return None
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(TRIED_ROWS, width, generator=generator).to(weight.device, weight.dtype)
    given = module(rows)
    wanted = gated_product(gate(rows), up(rows), weight, down.bias, activation)
    return found if given.shape == wanted.shape and torch.allclose(given, wanted, rtol=1e-2, atol=1e-5) else None
