"""RMSNorm with a derivative by hand is the model's own, and only what is one is taken for one."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import SHAREABLE, build
from torch import nn

from tiltlm.model.fused_norm import fuse_norms, own_norms, rms_norm


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


@pytest.mark.parametrize(
    ("family", "shift"), [("llama", 0), ("gemma3, sliding and full layers, soft-capped logits", 1), ("qwen3", 0)]
)
@pytest.mark.parametrize("narrow", [False, True])
def test_a_models_norms_give_what_they_gave(family: str, shift: int, narrow: bool) -> None:
    model = build(SHAREABLE[family](), torch.float32)
    for name, own in model.named_parameters():
        if "norm" in name:
            nn.init.normal_(own, 1 - shift, 0.3)
    fused = copy.deepcopy(model)
    assert fuse_norms(fused) >= 2 * model.config.get_text_config().num_hidden_layers
    tokens = torch.arange(12)[None] % 7
    with own_norms(fused):
        assert torch.equal(fused(torch.arange(5)[None]).logits, model(torch.arange(5)[None]).logits)
    results = []
    for one in (model, fused, copy.deepcopy(fused)):
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            logits = one(input_ids=tokens, use_cache=False).logits.float()
        logits.square().mean().backward()
        results.append((logits.detach(), [own.grad for own in one.parameters()]))
    for logits, gradients in results[1:]:
        torch.testing.assert_close(logits, results[0][0], rtol=0, atol=0.05 if narrow else 1e-5)
        for found, wanted in zip(gradients, results[0][1], strict=True):
            assert found is not None and wanted is not None
            assert (found - wanted).norm() <= (0.05 if narrow else 1e-5) * max(1e-3, float(wanted.norm()))


def test_what_is_no_norm_is_left_alone() -> None:
    class Other(nn.Module):
        variance_epsilon = 1e-6

        def __init__(self, width: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(width))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight * x

    model = build(SHAREABLE["gpt2"](), torch.float32)
    model.other = Other(model.config.hidden_size)
    assert fuse_norms(model) == 0 and "forward" not in vars(model.other)
