"""A model shared out over ranks: FSDP2, a group for each layer, and one for the rest at the root.

Each rank holds its part of every weight, gradient and number of the optimizer. A layer's weights are gathered for as
long as it is at work, and its gradients are added up over the ranks and shared out again (arXiv 2304.11277; PyTorch's
`fully_shard`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from tiltlm.config.distributed_config import DistributedConfig
from tiltlm.distributed.ranks import Ranks
from tiltlm.errors import ConfigError

Item = TypeVar("Item")


def require_possible(settings: DistributedConfig, ranks: Ranks, quantised: bool) -> None:
    """Refuses what could not be shared out as the settings say.

    quantised: whether the model is kept in fewer bits.

    Raises:
        ConfigError: the number of ranks is no multiple of distributed.shard, or weights are packed into what cannot be
            shared out.
    """
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
    root: nn.Module, layers: Sequence[nn.Module], settings: DistributedConfig, ranks: Ranks, device: torch.device
) -> None:
    """Shares out the weights of a module, in place: its forward is from then on a matter of all ranks.

    Gradients become means over the ranks, so a loss that is to be a sum over them is multiplied by their number.

    Args:
        root: the module whose forward is called. layers: parts of it that are gathered one at a time.
    """
    mesh = _mesh(settings, ranks, device)
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    # The output layer, and embeddings that may be tied to it, belong to the root: in a group of their own they would
    # come apart.
    fully_shard(root, mesh=mesh)


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


def settle(root: nn.Module) -> None:
    """Lets go of weights that a forward pass without a backward pass left gathered: those that are seen are then the
    rank's own again, and what is written into them is not lost."""
    if isinstance(root, FSDPModule):
        root.reshard()


def _mesh(settings: DistributedConfig, ranks: Ranks, device: torch.device) -> DeviceMesh:
    shard = settings.shard or ranks.count
    if shard == ranks.count:
        return init_device_mesh(device.type, (ranks.count,), mesh_dim_names=("shard",))
    return init_device_mesh(device.type, (ranks.count // shard, shard), mesh_dim_names=("replicate", "shard"))
