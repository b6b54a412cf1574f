"""A model whose weights stay in its files until somebody takes them: memory maps of these, as many as want them.

So each of several processes reads what it keeps of every weight, a layer at a time, and none holds the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

from tiltlm.config import DistributedConfig
from tiltlm.distributed.ranks import Ranks
from tiltlm.distributed.sharding import share_out
from tiltlm.model.finding import ModelSource, explained
from tiltlm.model.frozen import Base, is_packable
from tiltlm.model.fused_layers import fuse_layers
from tiltlm.model.loading import layers_of
from tiltlm.model.scorer import Scorer
from tiltlm.model.weight_files import type_in_files
from tiltlm.model.weights import read_model
from tiltlm.storage.scratch import scratch_array

_ALIGNED = 64
"""Bytes at whose multiples a tensor begins."""


def model_of_pages(source: ModelSource, note: Callable[[str], None] = lambda sentence: None) -> PreTrainedModel:
    """The model in evaluation mode, with weights of the type that its files have, as pages of these.

    It cannot be trained as it is, and is the model that `load_model` gives but for the type of its weights, what is
    computed by functions of ours, and the device.

    Raises:
        ModelError: as `load_model`.
    """
    dtype = type_in_files(source)
    model = read_model(source, dtype, note)
    if dtype is not torch.float32:
        _widen_buffers(model, source)
        # What it is at work: its configuration is a part of its address.
        parts = [getattr(model.config, name, None) for name in model.config.sub_configs]
        for config in (model.config, *parts):
            if config is not None:
                config.dtype = torch.float32
    return model


def _widen_buffers(model: PreTrainedModel, source: ModelSource) -> None:
    """Gives the model the buffers that it has where it is built in float32; some are computed then, and rounded."""
    with explained(source, "model"), no_init_weights():
        # Nothing is written into its weights, so they take no memory.
        config = AutoConfig.from_pretrained(
            source.location,
            local_files_only=source.local_files_only,
            trust_remote_code=source.trust_remote_code,
        )
        built = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=source.trust_remote_code
        )
    kept = set(model.state_dict())
    computed = dict(built.named_buffers())
    for name, buffer in list(model.named_buffers()):
        if not buffer.is_floating_point():
            continue
        module, _, last = name.rpartition(".")
        wide = buffer.float() if name in kept else computed[name]
        setattr(model.get_submodule(module), last, wide)


def into_shares(
    scorer: Scorer, base: Base | None, settings: DistributedConfig, ranks: Ranks, device: torch.device
) -> Scorer:
    """Takes a model out of its pages into the ranks' shares on their devices, in place: float32, and as the base says
    where an adapter is trained on it."""

    def prepare(modules: Sequence[nn.Module]) -> None:
        for module in modules:
            _take_out(module, base)
        fuse_layers(scorer.model, modules)

    share_out(scorer, layers_of(scorer.model), settings, ranks, device, prepare)
    scorer.place = device
    return scorer


def scratch_tensors(
    shapes: Sequence[torch.Size], dtype: torch.dtype, said: Callable[[str], None] = lambda why: None
) -> list[Tensor]:
    """Tensors whose values are not set yet, in one file without a name that is gone when they are. said: see
    `scratch_array`."""
    sizes = [-(-shape.numel() * dtype.itemsize // _ALIGNED) * _ALIGNED for shape in shapes]
    held = torch.from_numpy(scratch_array(sum(sizes), np.uint8, said))
    parts = held.split(sizes)
    return [
        part[: shape.numel() * dtype.itemsize].view(dtype).view(shape)
        for part, shape in zip(parts, shapes, strict=True)
    ]


def _take_out(module: nn.Module, base: Base | None) -> None:
    """Gives a module's own weights the type that they have at work. Tied ones stay tied."""
    narrow = base is not None and (is_packable(module) or isinstance(module, nn.Embedding))
    for parameter in module.parameters(recurse=False):
        if parameter.is_floating_point():
            dtype = base.dtype if base is not None and narrow and not parameter.requires_grad else torch.float32
            parameter.data = parameter.data.to(dtype)
