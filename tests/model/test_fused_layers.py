"""Layers that are computed by functions of ours are the model's own, and only what is one is taken for one."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import SHAREABLE, build
from torch import nn

from tiltlm.model.fused_layers import fuse_layers, stock_layers, use_stock_layers

GEMMA = "gemma3, sliding and full layers, soft-capped logits"


@pytest.mark.parametrize(("family", "shift"), [("llama", 0), (GEMMA, 1), ("qwen3", 0)])
@pytest.mark.parametrize("narrow", [False, True])
def test_a_models_layers_give_what_they_gave(family: str, shift: int, narrow: bool) -> None:
    model = build(SHAREABLE[family](), torch.float32)
    for name, own in model.named_parameters():
        if "norm" in name:
            nn.init.normal_(own, 1 - shift, 0.3)
    fused = copy.deepcopy(model)
    # Two norms and a feed-forward layer.
    assert fuse_layers(fused) >= 3 * model.config.get_text_config().num_hidden_layers
    tokens = torch.arange(12)[None] % 7
    with stock_layers(fused):
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


def test_the_feed_forward_layer_of_a_copy_reads_the_weights_of_the_copy() -> None:
    model = build(SHAREABLE["llama"](), torch.float32)
    fuse_layers(model)
    other = copy.deepcopy(model)
    before = model(torch.arange(5)[None]).logits
    with torch.no_grad():
        for own in other.parameters():
            own.zero_()
    assert torch.equal(model(torch.arange(5)[None]).logits, before)
    assert not other(torch.arange(5)[None]).logits.any()


class _Norm(nn.Module):
    variance_epsilon = 1e-6

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x


class _Gated(nn.Module):
    """Has the names of a gated feed-forward layer, and does something more."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(width, 8) for _ in range(2))
        self.down_proj, self.act_fn = nn.Linear(8, width), nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x).clamp(max=0.0))
        return made


def test_what_is_neither_is_left_alone() -> None:
    model = build(SHAREABLE["gpt2"](), torch.float32)
    width = model.config.hidden_size
    model.norm, model.gated = _Norm(width), _Gated(width)
    assert fuse_layers(model) == 0
    assert "forward" not in vars(model.norm) and "forward" not in vars(model.gated)


def test_a_projection_that_was_put_in_its_place_is_the_one_that_computes() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model = build(SHAREABLE["llama"](), torch.float32)
    fuse_layers(model)
    for layer in model.model.layers:
        down = layer.mlp.down_proj
        layer.mlp.down_proj = Doubled(down.in_features, down.out_features, bias=False)
        layer.mlp.down_proj.weight = down.weight
    tokens = torch.arange(6)[None]
    found = model(tokens).logits
    use_stock_layers(model)
    torch.testing.assert_close(found, model(tokens).logits)
