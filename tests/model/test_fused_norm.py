"""RMSNorm with a derivative by hand is the formula."""

from __future__ import annotations

import pytest
import torch

from tiltlm.model.fused_norm import rms_norm


@pytest.mark.parametrize("shape", [(3, 8), (2, 5, 16)])
def test_values_and_slopes_are_those_of_the_formula(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(shape[-1], dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(
        rms_norm(x, weight, 1e-2, torch.float64), weight * x / (x.square().mean(-1, keepdim=True) + 1e-2).sqrt()
    )
    assert torch.autograd.gradcheck(lambda a, b: rms_norm(a, b, 1e-2, torch.float64), (x, weight))


def test_rows_of_zeros_have_finite_slopes() -> None:
    x = torch.zeros(2, 4, requires_grad=True)
    rms_norm(x, torch.ones(4), 1e-6, torch.float32).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
