"""Weights in oneDNN's order give the same products, for as long as they are asked for."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import SHAREABLE, build
from torch import nn

from tiltlm.model import prepacked as module
from tiltlm.model.prepacked import prepacked

LAYERS = ("q_proj", "down_proj", "lm_head")


def _changed(model: nn.Module) -> list[str]:
    return [name for name, own in model.named_modules() if "forward" in vars(own)]


@pytest.mark.parametrize("rows", [1, 2, 40])
def test_products_are_those_of_the_layers(rows: int) -> None:
    model = build(SHAREABLE["llama"](), torch.float32)
    tokens = torch.arange(rows * 3).view(rows, 3) % 50
    with torch.inference_mode():
        wanted = model(tokens).logits
        with prepacked(model):
            changed, found = _changed(model), model(tokens).logits
        again = model(tokens).logits
    assert all(any(name.endswith(layer) for name in changed) for layer in LAYERS)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(again, wanted) and not _changed(model)


def test_a_bias_is_added() -> None:
    model = build(SHAREABLE["llama"](), torch.float32)
    layer = model.get_output_embeddings()
    layer.bias = nn.Parameter(torch.randn(layer.out_features))
    x = torch.randn(2, 5, layer.in_features)
    with torch.inference_mode():
        wanted = layer(x)
        with prepacked(model):
            torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-5)


def test_weights_that_changed_before_are_read_as_they_are() -> None:
    model = build(SHAREABLE["llama"](), torch.float32)
    with prepacked(model), torch.inference_mode():
        model(torch.arange(4)[None])
    with torch.no_grad():
        for own in model.parameters():
            own.mul_(1.5)
    tokens = torch.arange(4)[None]
    with torch.inference_mode(), prepacked(model):
        found = model(tokens).logits
    torch.testing.assert_close(found, copy.deepcopy(model)(tokens).logits, rtol=1e-5, atol=1e-5)


def test_all_is_as_it_was_after_an_error() -> None:
    model = build(SHAREABLE["llama"](), torch.float32)
    with pytest.raises(KeyError), prepacked(model):
        raise KeyError
    assert not _changed(model)


@pytest.mark.parametrize("there", [0, None])
def test_no_copy_is_made_where_memory_is_not_ample_or_not_known(
    monkeypatch: pytest.MonkeyPatch, there: int | None
) -> None:
    monkeypatch.setattr(module, "available_memory", lambda device: there)
    model = build(SHAREABLE["llama"](), torch.float32)
    with prepacked(model):
        assert not _changed(model)


def test_other_weights_are_left_alone() -> None:
    model = build(SHAREABLE["llama"](), torch.bfloat16)
    with prepacked(model):
        assert not _changed(model)
