"""What a training step takes in memory, found without weights: the step is run on tensors that have no content.

PyTorch's fake tensors have shape, type and device, and every operation on them is the real one's in all but numbers. So
the model is built by its configuration, frozen, given an adapter, run forward and backward over a micro-batch as
training runs it, and what is alive is added up as it comes and goes. What kernels take for themselves, what an
allocator cannot use again and what the process holds besides are not in it.
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from tiltlm.config import AdapterConfig
from tiltlm.model.adapters import new_adapter
from tiltlm.model.frozen import Base, freeze, is_packable, multiply_frozen
from tiltlm.model.fused_layers import fuse_layers
from tiltlm.model.head import logits_alive
from tiltlm.model.loading import autocast, checkpoint_activations
from tiltlm.model.memory_peak import Peak
from tiltlm.model.scorer import Scorer
from tiltlm.model.steering_vectors import train_steering_vectors
from tiltlm.plan.batches import MicroBatch

_NOBODY = np.empty(0, dtype=np.int64)

MOMENTS = {"adamw": 2, "rmsprop": 1}
"""Numbers that an optimizer keeps of each trained parameter, in float32."""

BESIDES = 700_000_000
"""Bytes that a process with PyTorch holds besides, about: its libraries on a CPU, the context of a GPU."""

# With their constants packed too: 4 bits, 1 byte for 64 weights, 4 bytes for 256 of those.
_PACKED_BYTES = {"nf4": 0.5 + 1 / 64 + 4 / (64 * 256), "int8": 1.0}


@dataclass(frozen=True, slots=True)
class Way:
    """A way to train a model.

    base, adapter: how the model is kept and what is added to it; None: its own weights are trained.
    vectors: of these, steering vectors alone.
    """

    base: Base | None
    adapter: AdapterConfig | None
    precision: torch.dtype
    optimizer: str
    activation_checkpointing: bool
    vectors: bool = False


@dataclass(frozen=True, slots=True)
class StepMemory:
    """Bytes of a training step by part, and how many parameters there are.

    activations: what one micro-batch takes at its peak besides the rest: activations kept for the backward pass,
        weights as they are rounded for the arithmetic, chunks of logits. logits: one such chunk.
    checkpoint: bytes of a checkpoint on disk.
    """

    parameters: int
    trained: int
    weights: int
    gradients: int
    moments: int
    activations: int
    logits: int
    checkpoint: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations


def step_memory(config: PreTrainedConfig, way: Way, batch: MicroBatch, device: torch.device) -> StepMemory:
    """The memory of one training step over a micro-batch, where gradients of earlier ones are there already.

    Where all layers are alike, a model of few layers and one of a few more are looked at, and each further layer is
    taken to add what those do: running many without content takes as long as little arithmetic.

    Raises:
        ConfigError: the adapter's targets are not in the model, or its layers cannot be recomputed.
    """
    layers = config.get_text_config().num_hidden_layers
    counts = _FEW_AND_MORE_OF_VECTORS if way.vectors else _FEW_AND_MORE
    if layers <= counts[1] or not _layers_are_alike(config):
        return _looked_at(config, way, batch, device).most()
    few, more = (_looked_at(_with_layers(config, count), way, batch, device) for count in counts)
    further, step = layers - counts[1], counts[1] - counts[0]
    parts = {
        part.name: getattr(more, part.name) + (getattr(more, part.name) - getattr(few, part.name)) * further // step
        for part in fields(_Looked)
    }
    return _Looked(**parts).most()


@dataclass(frozen=True, slots=True)
class _Looked(StepMemory):
    """A step in two phases, in each of which memory grows evenly with the layers; the larger of the two need not.

    activations: the peak until the gradient of the embeddings is made. afterwards: from then on.
    """

    afterwards: int

    def most(self) -> StepMemory:
        """The step as a whole."""
        parts = {part.name: getattr(self, part.name) for part in fields(StepMemory)}
        return StepMemory(**{**parts, "activations": max(self.activations, self.afterwards)})


_FEW_AND_MORE, _FEW_AND_MORE_OF_VECTORS = (2, 4), (4, 6)
"""Numbers of layers. Vectors are trained in half of them, of which the lowest and the highest are unlike the rest."""
_KINDS_OF_LAYERS = (
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "first_k_dense_replace",
    "num_kv_shared_layers",
)


def _layers_are_alike(config: PreTrainedConfig) -> bool:
    """Whether a model's layers differ in nothing that its configuration says layer by layer."""
    text = config.get_text_config()
    listed = [value for value in vars(text).values() if isinstance(value, (list, tuple))]
    each = [value for value in listed if len(value) == text.num_hidden_layers]
    return all(one == value[0] for value in each for one in value) and not any(
        getattr(text, name, None) for name in _KINDS_OF_LAYERS
    )


def _with_layers(config: PreTrainedConfig, count: int) -> PreTrainedConfig:
    """The configuration of the same model with so many layers."""
    changed = copy.deepcopy(config)
    text = changed.get_text_config()
    layers = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        if isinstance(value, (list, tuple)) and len(value) == layers:
            setattr(text, name, value[:count])
    text.num_hidden_layers = count
    return changed


def _looked_at(config: PreTrainedConfig, way: Way, batch: MicroBatch, device: torch.device) -> _Looked:
    """`step_memory` by running a step of the model as it is."""
    with torch.device("meta"):
        scorer, packed = _without_content(config, way)
    parameters = list(scorer.parameters())
    trained = sum(own.numel() for own in parameters if own.requires_grad)
    weights = sum(own.numel() * own.element_size() for own in parameters if id(own) not in packed)
    weights += sum(packed.values())
    with FakeTensorMode(allow_non_fake_inputs=True):
        _put_on(scorer.model, device)
        parameters = list(scorer.parameters())
        for own in parameters:
            own.grad = torch.zeros_like(own) if own.requires_grad else None
        placed = batch.to(device)
        with Peak() as peak:
            with autocast(device, way.precision):
                logps = scorer(placed)
            logps.sum().backward()
    vocabulary = scorer.model.get_output_embeddings().weight.shape[0]
    checkpoint = checkpoint_bytes(trained, way.optimizer)
    return _Looked(
        parameters=sum(own.numel() for own in parameters),
        trained=trained,
        weights=weights,
        gradients=4 * trained,
        moments=checkpoint - 4 * trained,
        activations=peak.most,
        afterwards=peak.afterwards,
        logits=4 * logits_alive(len(batch.score_at_S), vocabulary, device),
        checkpoint=checkpoint,
    )


def held_bytes(scorer: Scorer, optimizer: str) -> int:
    """What weights, gradients and the optimizer's numbers of a model take, whatever the step."""
    weights = sum(own.numel() * own.element_size() for own in scorer.parameters())
    trained = sum(own.numel() for own in scorer.trained().values())
    return weights + checkpoint_bytes(trained, optimizer)  # gradients as trained weights, then the moments


def memory_of(device: torch.device) -> int | None:
    """Bytes of memory that a device has; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def checkpoint_bytes(trained: int, optimizer: str) -> int:
    """What so many trained parameters take in a checkpoint, with what the optimizer knows of them, in float32."""
    return 4 * trained * (1 + MOMENTS[optimizer])


def fake_batch(columns: int, rows: int, scored: int) -> MicroBatch:
    """A micro-batch of so many full rows, of which so many tokens are scored."""
    grid = torch.zeros(rows, columns, dtype=torch.long)
    places = torch.zeros(scored, dtype=torch.long)
    return MicroBatch(
        tokens_RL=grid,
        positions_RL=grid,
        subtree_end_RL=grid + columns,
        score_at_S=places,
        score_token_S=places,
        score_sequence_S=places,
        offset_S=places,
        reference_S=None,
        labels_N=torch.zeros(1, dtype=torch.long),
        tokens_N=torch.ones(1, dtype=torch.long),
        scores_N=torch.zeros(1),
        list_UK=torch.zeros(1, 1, dtype=torch.long),
        examples=_NOBODY,
        places=_NOBODY,
        laid_out=rows * columns,
        trees=True,
    )


def _without_content(config: PreTrainedConfig, way: Way) -> tuple[Scorer, Mapping[int, int]]:
    """The model as it is trained, and how many bytes its packed weights take, by the parameters' identity."""
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.eval()
    fuse_layers(model)
    packed: dict[int, int] = {}
    if way.base is None:
        if way.vectors:
            train_steering_vectors(model)
        scorer = Scorer(model)
    else:
        freeze(model, replace(way.base, quantise="none"))
        if way.base.quantise != "none":
            packed = _pack(model, way.base.quantise)
        assert way.adapter is not None
        scorer = new_adapter(Scorer(model), way.adapter, 0)
    if way.activation_checkpointing:
        checkpoint_activations(model)
    return scorer, packed


def _put_on(model: nn.Module, device: torch.device) -> None:
    """Puts fake tensors on a device in the place of those without content. To be called where tensors are fake."""
    made: dict[int, Tensor] = {}

    def like(own: Tensor) -> Tensor:
        if id(own) not in made:
            there = torch.empty(own.shape, dtype=own.dtype, device=device)
            made[id(own)] = nn.Parameter(there, own.requires_grad) if isinstance(own, nn.Parameter) else there
        return made[id(own)]

    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, own in table.items():
                if own is not None:
                    table[name] = like(own)  # type: ignore[assignment]


def _pack(model: PreTrainedModel, quantise: str) -> dict[int, int]:
    """Puts bytes in the place of weights that would be packed: they are widened where they multiply, as those are."""
    packed = {}
    head = model.get_output_embeddings()
    for module in model.modules():
        if is_packable(module) and module is not head:
            own: Any = module
            count = own.weight.numel()
            own.weight = nn.Parameter(torch.empty_like(own.weight, dtype=torch.uint8), requires_grad=False)
            packed[id(own.weight)] = round(_PACKED_BYTES[quantise] * count) + 4 * (quantise == "int8") * len(own.weight)
            own.forward = functools.partial(multiply_frozen, own)
    return packed
