"""Steering vectors: of the whole model only vectors are trained, one a layer, which are added to what the layer says.

A vector is the bias of a projection that a layer writes into the stream between the layers with, so that what is saved
is an ordinary model: of the architecture's own biases, or of those that its configuration can turn on.

Sources: biases alone, Ben Zaken et al., arXiv 2106.10199 (BitFit); vectors by DPO, Cao et al., arXiv 2406.00045 (BiPO).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tiltlm.errors import ConfigError
from tiltlm.model.loading import layers_of

_SWITCHES = ("mlp_bias", "attention_bias")
"""Options of configurations that give projections a bias, in the order in which they are tried."""

_WRITERS = ("down_proj", "fc2", "dense_4h_to_h", "c_proj", "w2", "o_proj", "out_proj", "dense")
"""What architectures call the projections that write into the stream between the layers, after the feed-forward part
and after attention. Others may be as wide, as that of queries is."""


def train_steering_vectors(model: PreTrainedModel) -> None:
    """Freezes the model but for a vector in each layer of its upper half, in place. Vectors that it lacks are zero: it
    gives what it gave.

    The upper half, as lower layers tell apart words rather than what an answer is about; docs/steering-vectors.md has
    what each layer's vector is good for.

    Raises:
        ConfigError: the architecture has no place for them.
    """
    vectors = list(_vectors(model))
    for switch in _SWITCHES:
        if vectors:
            break
        if getattr(model.config.get_text_config(), switch, None) is False:
            _turn_on(model, switch)
            vectors = list(_vectors(model))
    if not vectors:
        raise ConfigError(
            f"training.parameters: the layers of a {type(model).__name__} have no place for steering vectors, neither "
            f"biases nor an option ({', '.join(_SWITCHES)}) that gives them some: train all parameters, or an adapter."
        )
    model.requires_grad_(False)
    for vector in vectors:
        vector.requires_grad_(True)


def _vectors(model: PreTrainedModel) -> Iterator[nn.Parameter]:
    """Of each layer of the upper half, the bias of the last projection that writes into the stream."""
    width, layers = model.config.get_text_config().hidden_size, layers_of(model)
    for layer in layers[len(layers) // 2 :]:
        found = [
            module.bias
            for name, module in layer.named_modules()
            if name.rpartition(".")[2] in _WRITERS and isinstance(module, nn.Linear | Conv1D)
            if module.bias is not None and len(module.bias) == width
        ]
        if found:
            yield found[-1]


def _turn_on(model: PreTrainedModel, switch: str) -> None:
    """Turns an option of the configuration on, if all it does is give projections a bias: each is zero."""
    config = copy.deepcopy(model.config)
    setattr(config.get_text_config(), switch, True)
    with torch.device("meta"):
        wanted = type(model)(config).state_dict()
    added = wanted.keys() - model.state_dict().keys()
    if not all(name.endswith(".bias") for name in added):
        return  # it does more there than its name says
    for name in added:
        module = model.get_submodule(name.rpartition(".")[0])
        assert isinstance(module.weight, torch.Tensor)
        module.bias = nn.Parameter(torch.zeros_like(module.weight[:, 0]))
    setattr(model.config.get_text_config(), switch, True)
