"""The gated feed-forward layer with a derivative by hand gives what its operations give, and keeps less."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tiltlm.model.gated_mlp import gated_product

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "identity": lambda gate: gate,
}


def _given(dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = ((2, 5, 12), (2, 5, 12), (7, 12), (7,))
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_are_those_of_the_values(name: str) -> None:
    def made(gate: Tensor, up: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return gated_product(gate, up, weight, bias, ACTIVATIONS[name])

    assert torch.autograd.gradcheck(made, _given(torch.float64))


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("trained", [(0, 1, 2, 3), (0, 1), (0,), (1,), (2,), (3,)])
def test_values_and_slopes_are_those_of_the_operations(name: str, dtype: torch.dtype, trained: tuple[int, ...]) -> None:
    activation = ACTIVATIONS[name]
    results = []
    for ours in (False, True):
        given = [own.detach().requires_grad_(place in trained) for place, own in enumerate(_given(dtype))]
        gate, up, weight, bias = given
        made = (
            gated_product(gate, up, weight, bias, activation) if ours else F.linear(activation(gate) * up, weight, bias)
        )
        made.float().square().sum().backward()
        results.append((made.detach(), [own.grad for own in given]))
    (wanted, slopes), (found, own_slopes) = results
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    for place, (slope, own) in enumerate(zip(slopes, own_slopes, strict=True)):
        assert (own is not None) == (place in trained)
        torch.testing.assert_close(own, slope)


def test_two_of_the_four_tensors_of_the_inner_width_are_kept() -> None:
    kept: list[tuple[int, ...]] = []

    def keep(own: Tensor) -> Tensor:
        kept.append(tuple(own.shape))
        return own

    gate, up, weight, bias = _given(torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda own: own):
        gated_product(gate, up, weight, bias, F.silu)
    assert sorted(kept) == [(2, 5, 12), (2, 5, 12), (7, 12)]
