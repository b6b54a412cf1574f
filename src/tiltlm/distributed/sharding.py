"""A model shared out over ranks: FSDP2, a group for each layer, and one for the rest at the root.

Each rank holds its part of every weight, gradient and number of the optimizer. A layer's weights are gathered for as
long as it is at work, and its gradients are added up over the ranks and shared out again (arXiv 2304.11277; PyTorch's
`fully_shard`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from tiltlm.config.distributed_config import DistributedConfig
from tiltlm.distributed.ranks import Ranks
from tiltlm.errors import ConfigError

Item = TypeVar("Item")


def require_possible(settings: DistributedConfig, ranks: Ranks, quantised: bool) -> None:
    """Refuses what could not be shared out as the settings say.

    quantised: whether the model is kept in fewer bits.

    Raises:
        ConfigError: the number of ranks is no multiple of distributed.shard, weights are packed into what cannot be
            shared out, or there are no shares.
    """
    if not ranks.several and settings.offload:
        raise ConfigError(
            "distributed.offload is about shares of several ranks, and this is one process: start it by torchrun."
        )
    if not ranks.several:
        return
    if quantised:
        raise ConfigError(
            "a model that is kept in fewer bits (adapter.quantise) cannot be shared out over ranks: start one process, "
            'or set adapter.quantise to "none".'
        )
    if settings.shard and ranks.count % settings.shard:
        raise ConfigError(
            f"distributed.shard is {settings.shard}, and {ranks.count} ranks are no multiple of it: start another "
            "number of processes, or set it to a divisor."
        )


def share_out(
    root: nn.Module,
    layers: Sequence[nn.Module],
    settings: DistributedConfig,
    ranks: Ranks,
    device: torch.device,
    prepare: Callable[[Sequence[nn.Module]], None] = lambda modules: None,
) -> None:
    """Shares out the weights of a module, in place: its forward is from then on a matter of all ranks.

    Gradients become means over the ranks, so a loss that is to be a sum over them is multiplied by their number.

    Args:
        root: the module whose forward is called. layers: parts of it that are gathered one at a time.
        device: where the shares are to be; the weights may be elsewhere, and go there a layer at a time.
        prepare: is given the modules of a layer, and at last those of no layer, each before its weights are shared out.
    """
    mesh, rest = _mesh(settings, ranks, device), set(root.modules())
    lie = CPUOffloadPolicy(pin_memory=device.type == "cuda") if settings.offload else OffloadPolicy()
    for layer in layers:
        prepare(list(layer.modules()))
        fully_shard(layer, mesh=mesh, offload_policy=lie)
        rest -= set(layer.modules())
    # The output layer, and embeddings that may be tied to it, belong to the root: in a group of their own they would
    # come apart.
    prepare([module for module in root.modules() if module in rest])
    fully_shard(root, mesh=mesh, offload_policy=lie)
    _call_first(root)


def _call_first(root: nn.Module) -> None:
    """Has FSDP see the root before any layer: it takes whatever is called first for the root of what is called."""
    name = "nothing"
    setattr(root, name, lambda: None)
    register_fsdp_forward_method(root, name)
    getattr(root, name)()
    delattr(root, name)
    if isinstance(root, FSDPModule):
        root.reshard()


def is_shared(root: nn.Module) -> bool:
    """Whether its weights are shared out over ranks."""
    return isinstance(root, FSDPModule)


@contextmanager
def opened(*roots: nn.Module) -> Iterator[None]:
    """Within, what of each root belongs to no layer is there whole, so that any part of it can be called by itself, by
    all ranks alike and without gradients; layers are gathered as they are called. What a forward pass left so is
    afterwards the rank's own again, unless it was whole before."""
    shut = [root for root in roots if isinstance(root, FSDPModule) and not _is_open(root)]
    for root in shut:
        root.unshard()
    try:
        yield
    finally:
        for root in shut:
            root.reshard()


def leave_open(root: nn.Module) -> None:
    """Gathers what of a root belongs to no layer, for as long as it is not closed."""
    if isinstance(root, FSDPModule):
        root.unshard()


@contextmanager
def closed(root: nn.Module | None) -> Iterator[None]:
    """Within, the weights that are seen are the rank's own, to be read and changed; None: nothing is."""
    roots = [] if root is None else [root]
    open_before = [one for one in roots if isinstance(one, FSDPModule) and _is_open(one)]
    for one in open_before:
        one.reshard()
    try:
        yield
    finally:
        for one in open_before:
            one.unshard()


def _is_open(root: nn.Module) -> bool:
    """Whether what belongs to no layer is there whole: layers at rest never are."""
    return not all(isinstance(own, DTensor) for own in root.parameters())


def in_turn(root: nn.Module, passes: Sequence[Item]) -> Iterator[Item]:
    """The passes of a step one after another. Gradients are shared out with each; over replicas they are added up with
    the last one alone, as is all of them where every rank holds all weights, and so has room for all gradients."""
    shard = _shared_by(root)
    for number, one in enumerate(passes, start=1):
        last = number == len(passes)
        if isinstance(root, FSDPModule) and shard == 1:
            root.set_requires_gradient_sync(last)
        elif isinstance(root, FSDPModule) and shard is not None:
            root.set_requires_all_reduce(last)
        yield one


def _shared_by(root: nn.Module) -> int | None:
    """Over how many ranks weights are shared out where there are replicas; None where there are none."""
    meshes = [own.device_mesh for own in root.parameters() if isinstance(own, DTensor)]
    return meshes[0].size(1) if meshes and meshes[0].ndim == 2 else None


def _mesh(settings: DistributedConfig, ranks: Ranks, device: torch.device) -> DeviceMesh:
    return _made_mesh(dist.group.WORLD, device.type, ranks.count, settings.shard or ranks.count)


@functools.cache
def _made_mesh(world: ProcessGroup | None, kind: str, count: int, shard: int) -> DeviceMesh:
    """One for all models of a job: each mesh has groups of its own, and on GPUs their connections."""
    if shard == count:
        return init_device_mesh(kind, (count,), mesh_dim_names=("shard",))
    return init_device_mesh(kind, (count // shard, shard), mesh_dim_names=("replicate", "shard"))
