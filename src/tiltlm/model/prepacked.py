"""Weights of linear layers in the order in which oneDNN reads them, for as long as a model only answers.

A product of few rows spends its time on the weights. Put in order once, they are read faster than by PyTorch's own
product for float32: the fewer the rows, the more (docs/speed.md has what whole answers take). The weights must not
change meanwhile.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tiltlm.model.available_memory import available_memory

_AMPLE = 2
"""How many times what the ordered copies take must be available for them to be made."""


@contextmanager
def prepacked(model: PreTrainedModel) -> Iterator[None]:
    """Within, linear layers of float32 weights on a CPU multiply by ordered copies, where memory is ample.

    Values differ in their last digits from those without. Nothing within may need a gradient or change a weight.
    """
    layers = _layers(model)
    for layer in layers:
        own: Any = layer
        own.forward = functools.partial(_multiply, torch.ops.mkldnn._reorder_linear_weight(layer.weight), layer.bias)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _layers(model: PreTrainedModel) -> list[nn.Linear]:
    """The layers that may be computed so; none where it is not known to serve."""
    operations = torch.ops.mkldnn
    if model.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return []
    if not all(hasattr(operations, name) for name in ("_reorder_linear_weight", "_linear_pointwise")):
        return []
    layers = [
        module
        for module in model.modules()
        # What is more than a linear layer, or was given another way to compute, goes its own way.
        if type(module) is nn.Linear and "forward" not in vars(module) and module.weight.dtype is torch.float32
    ]
    there, needed = available_memory(model.device), sum(layer.weight.nbytes for layer in layers)
    return layers if there is not None and _AMPLE * needed <= there else []


def _multiply(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
