"""Steering vectors: zero at first, one a layer of the upper half, and saved as biases that stock transformers reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import SHAREABLE, UNSHAREABLE, VOCABULARY, build
from transformers import AutoModelForCausalLM, PreTrainedModel

from tiltlm.errors import ConfigError
from tiltlm.model.loading import layers_of
from tiltlm.model.steering_vectors import train_steering_vectors

FAMILIES = SHAREABLE | {name: make for name, (make, _) in UNSHAREABLE.items()}
WITHOUT = {
    "mistral, sliding window",
    "qwen2",
    "phi3",
    "phi3, sliding window",
    "mamba",
    "lfm2, convolutions",
}
"""Families whose layers have no biases of the model's width, nor an option for them."""
IDS = torch.arange(3, 19).reshape(2, 8) % VOCABULARY


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_with_vectors_is_an_ordinary_model(name: str, tmp_path: Path) -> None:
    model = build(FAMILIES[name]())
    before = logits(model)
    if name in WITHOUT:
        with pytest.raises(ConfigError, match="no place for steering vectors"):
            train_steering_vectors(model)
        return
    train_steering_vectors(model)
    assert torch.equal(logits(model), before)
    vectors = {name: own for name, own in model.named_parameters() if own.requires_grad}
    layers = layers_of(model)
    upper = [own for layer in layers[len(layers) // 2 :] for own in layer.parameters()]
    assert 1 <= len(vectors) <= len(layers) - len(layers) // 2
    for name, own in vectors.items():
        assert name.endswith(".bias") and own.shape == (32,) and any(own is other for other in upper), name
        with torch.no_grad():
            own.add_(torch.randn_like(own))
    steered = logits(model)
    assert not torch.allclose(steered, before, atol=1e-2)
    model.save_pretrained(tmp_path / "model")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float64).eval()
    torch.testing.assert_close(logits(again), steered, rtol=0, atol=1e-6)  # some buffers are computed in float32
    kept = len(again.state_dict())
    train_steering_vectors(again)
    assert len(again.state_dict()) == kept, "vectors that are there are gone on with"
    torch.testing.assert_close(logits(again), steered, rtol=0, atol=1e-6)


def test_a_vector_is_added_to_what_its_layer_gives() -> None:
    model = build(FAMILIES["llama"]())
    train_steering_vectors(model)
    given: list[torch.Tensor] = []
    top = layers_of(model)[-1]
    top.register_forward_hook(lambda module, inputs, output: given.append(output))
    logits(model)
    (vector,) = (own for own in model.parameters() if own.requires_grad)
    with torch.no_grad():
        vector.copy_(torch.randn_like(vector))
    logits(model)
    torch.testing.assert_close(given[1] - given[0], vector.detach().expand_as(given[0]))
