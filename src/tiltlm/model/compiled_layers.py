"""Layers compiled by torch.compile: each layer's code once for all layers and all shapes.

Attention over trees stays as it is, a break within each layer: what it is given differs from batch to batch.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from transformers import PreTrainedModel

from tiltlm.errors import ConfigError
from tiltlm.model.fused_layers import use_stock_layers
from tiltlm.model.loading import layers_of

INDUCTOR = "inductor"


def compile_layers(model: PreTrainedModel, backend: str = INDUCTOR) -> None:
    """Lets each layer be computed by a compiled form of its own code, which is made when it is first run.

    Values are rounded where the code as it is rounds them, so that they differ by the order of sums alone.

    Raises:
        ConfigError: the model's layers are not known.
    """
    layers = layers_of(model)
    if not layers:
        raise ConfigError(f"training.compile has no effect on {type(model).__name__}: remove it.")
    use_stock_layers(model)  # a function of ours, and one of each module, would be compiled for each of them
    torch._dynamo.config.allow_unspec_int_on_nn_module = True  # layers differ in their number alone
    # Else the float32 values that stand between two fused operations are not rounded to bfloat16.
    options: Any = {"emulate_precision_casts": True} if backend == INDUCTOR else None
    made = functools.partial(torch.compile, dynamic=True, backend=backend, options=options)
    for layer in layers:
        own: Any = layer
        own.forward = made(own.forward)


def require_compiler(device: torch.device) -> None:
    """Refuses to go on where layers could not be compiled.

    Raises:
        ConfigError: what torch.compile makes programs with is missing.
    """
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise ConfigError("training.compile needs Triton on a GPU: install it, or turn training.compile off.")
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise ConfigError(
            "training.compile needs a C++ compiler on a CPU (g++ or clang++; CXX names one): install one, or turn "
            "training.compile off."
        ) from None
