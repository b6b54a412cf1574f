"""Layers of a model that are computed by functions of ours, each with its derivative by hand.

A layer is known by what it does, not by its name: on random rows the function must give what the layer's own code
gives.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from transformers import PreTrainedModel

from tiltlm.model.fused_norm import as_fused_norm
from tiltlm.model.gated_mlp import as_gated_mlp

Stock = Callable[..., Tensor]


def fuse_layers(model: PreTrainedModel, modules: Iterable[nn.Module] | None = None) -> int:
    """Lets each RMSNorm of the model's own width, and each gated feed-forward layer, be computed by our function; how
    many there are.

    modules: those of the model that are looked at; None: all of them.
    """
    width = model.config.get_text_config().hidden_size
    fused = 0
    for module in model.modules() if modules is None else modules:
        if "forward" in vars(module):
            continue
        if (found := as_fused_norm(module, width) or as_gated_mlp(module, width)) is not None:
            module.forward = functools.partial(_by_ours, found, module)
            fused += 1
    return fused


def use_stock_layers(model: nn.Module) -> list[tuple[nn.Module, Stock]]:
    """Lets the model's layers be computed by its own code again; which they were, and what computed them."""
    fused: list[tuple[nn.Module, Stock]] = [
        (module, forward)
        for module in model.modules()
        if isinstance(forward := vars(module).get("forward"), functools.partial) and forward.func is _by_ours
    ]
    for module, _ in fused:
        del module.forward
    return fused


@contextmanager
def stock_layers(model: nn.Module) -> Iterator[None]:
    """Within, the model's layers are computed by its own code, to compare with."""
    fused = use_stock_layers(model)
    try:
        yield
    finally:
        for module, forward in fused:
            module.forward = forward


def _by_ours(function: Stock, module: nn.Module, x: Tensor) -> Tensor:
    return function(module, x)
