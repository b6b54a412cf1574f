"""A model whose own weights stay as they are: kept in fewer bits, and multiplied with as if they were not.

Layers keep their weights in bfloat16, in 4 bits (NF4, arXiv 2305.14314) or in 8, and widen them where they multiply, in
the forward and again in the backward pass: nothing wide is kept between the two. bitsandbytes packs and unpacks; its
own products are not used, since they let the other tokens of a batch decide how one is multiplied with 8 bits (arXiv
2208.07339), and repack the weights they were given where no gradient is asked for. So layouts give the same here too,
and the weights stay as they were read, to the bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tiltlm.config.adapter_config import Quantisation

QUANTISED_TYPES = ("Params4bit", "Int8Params")
"""Parameters of bitsandbytes, known by name: it need not be installed."""


@dataclass(frozen=True, slots=True)
class Base:
    """How a model is kept that an adapter is trained on.

    dtype: of what is not quantised, but for the weights of norms, which stay float32.
    """

    quantise: Quantisation = "none"
    dtype: torch.dtype = torch.float32

    @property
    def packages(self) -> tuple[str, ...]:
        """What it needs to be installed."""
        return ("peft",) if self.quantise == "none" else ("peft", "bitsandbytes", "accelerate")

    @property
    def in_words(self) -> str:
        """Such as `nf4, the rest bfloat16`."""
        dtype = str(self.dtype).removeprefix("torch.")
        return dtype if self.quantise == "none" else f"{self.quantise}, the rest {dtype}"


def freeze(model: PreTrainedModel, base: Base) -> None:
    """Takes all weights out of training, and keeps them as the base says."""
    model.requires_grad_(False)
    for module in model.modules():
        if is_quantised(module) or (base.dtype is not torch.float32 and is_packable(module)):
            if not is_quantised(module):
                module.to(base.dtype)
            module.forward = functools.partial(multiply_frozen, module)
        elif base.dtype is not torch.float32 and isinstance(module, nn.Embedding):
            module.to(base.dtype)
            # What is looked up is float32 either way: layers add to it, and a narrow sum would lose their small terms.
            module.register_forward_hook(_widened)


def is_quantised(module: nn.Module) -> bool:
    return type(getattr(module, "weight", None)).__name__ in QUANTISED_TYPES


def wide_weight(module: nn.Module, dtype: torch.dtype) -> Tensor:
    """The weight of a layer as a matrix of `dtype`, outputs first."""
    weight: Any = module.weight
    kind = type(weight).__name__
    if kind == "Params4bit":
        import bitsandbytes.functional as packed

        wide: Tensor = packed.dequantize_4bit(weight.data, weight.quant_state)
    elif kind == "Int8Params":
        wide = weight.data.float() * (weight.SCB.float() / 127)[:, None]
    else:
        wide = weight.T if isinstance(module, Conv1D) else weight
    return wide.to(dtype)


def dequantise(model: PreTrainedModel) -> None:
    """Puts ordinary float32 layers, trained by nobody, in the place of layers that keep their weights in fewer bits."""
    for name, module in list(model.named_modules()):
        narrow = isinstance(module, nn.Linear | Conv1D | nn.Embedding) and module.weight.dtype is torch.bfloat16
        if is_quantised(module):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, _plain(module))
        elif narrow:
            module.float()
            vars(module).pop("forward", None)
            module._forward_hooks.clear()
    for mark in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, mark):
            delattr(model.config, mark)
    for mark, plain_value in {"hf_quantizer": None, "is_quantized": False, "is_loaded_in_4bit": False}.items():
        if hasattr(model, mark):
            setattr(model, mark, plain_value)
    for mark in ("is_loaded_in_8bit", "quantization_method"):
        vars(model).pop(mark, None)


def _plain(module: Any) -> nn.Module:
    """An ordinary layer with the weights of a quantised one."""
    transposed = getattr(module, "source_cls", None) is Conv1D
    with torch.device("meta"):
        layer: Any = (
            Conv1D(module.out_features, module.in_features)
            if transposed
            else nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        )
    wide = wide_weight(module, torch.float32)
    layer.weight = nn.Parameter(wide.T.contiguous() if transposed else wide, requires_grad=False)
    if module.bias is not None:
        layer.bias = nn.Parameter(module.bias.detach().float(), requires_grad=False)
    plain: nn.Module = layer.train(module.training)
    return plain


def is_packable(module: nn.Module) -> bool:
    """Whether a layer is one whose weights can be kept in fewer bits."""
    return isinstance(module, nn.Linear | Conv1D)


def multiply_frozen(module: nn.Module, x: Tensor) -> Tensor:
    """What a frozen layer does: widens its weight where it multiplies."""
    bias: Any = module.bias
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    y: Tensor = _FrozenProduct.apply(x, bias, functools.partial(wide_weight, module), dtype)  # type: ignore[no-untyped-call]
    return y


def _widened(module: nn.Module, given: Any, looked_up: Tensor) -> Tensor:
    return looked_up.float()


class _FrozenProduct(torch.autograd.Function):
    """x W^T + b with a weight that is made when it is needed, and no gradient of it."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, weight: Callable[[torch.dtype], Tensor], dtype: torch.dtype
    ) -> Tensor:
        ctx.weight, ctx.given, ctx.dtype = weight, x.dtype, dtype
        with torch.autocast(x.device.type, enabled=False):
            return nn.functional.linear(x.to(dtype), weight(dtype), None if bias is None else bias.to(dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(slope.device.type, enabled=False):
            return (slope.to(ctx.dtype) @ ctx.weight(ctx.dtype)).to(ctx.given), None, None, None
