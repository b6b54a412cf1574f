"""Tensors that are shared out over ranks by their rows, and those that are not, alike."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or all of one that is shared out over ranks, which all of them ask for."""
    if not isinstance(tensor, DTensor):
        return tensor
    full: Tensor = tensor.full_tensor()
    return full


def own_part(tensor: Tensor) -> tuple[Tensor, int]:
    """What this rank has of a tensor, and at which of its numbers, counted row by row, that begins."""
    if not isinstance(tensor, DTensor):
        return tensor, 0
    mesh, at = tensor.device_mesh, next((n for n, how in enumerate(tensor.placements) if how.is_shard()), None)
    if at is None:
        return tensor.to_local(), 0
    assert tensor.placements[at] == Shard(0), f"shared out by {tensor.placements[at]}"
    rows = -(-tensor.shape[0] // mesh.size(at))
    first = min(mesh.get_local_rank(at) * rows, tensor.shape[0])
    return tensor.to_local(), first * math.prod(tensor.shape[1:])


def with_part(tensor: Tensor, part: Tensor) -> Tensor:
    """A tensor of which each rank has such a part, shared out as `tensor` is."""
    if not isinstance(tensor, DTensor):
        return part
    sizes = [*itertools.accumulate(reversed(tensor.shape[1:]), lambda done, size: done * size, initial=1)]
    made: Tensor = DTensor.from_local(
        part,
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tuple(reversed(sizes)),
    )
    return made


def share_of(values: Any, own: Tensor) -> Any:
    """This rank's share of a tensor of which every rank has all, shared out as `own` is; whatever else as it is."""
    if not isinstance(own, DTensor) or not isinstance(values, Tensor) or isinstance(values, DTensor):
        return values
    if values.shape != own.shape:
        return values
    return distribute_tensor(values, own.device_mesh, own.placements, src_data_rank=None)


@torch.no_grad()
def take(own: Tensor, values: Tensor) -> None:
    """Writes values into a tensor, or into this rank's share of one: values of which every rank has all, or that are
    shared out as it is."""
    shared = share_of(values, own)
    if isinstance(own, DTensor):
        own.to_local().copy_(shared.to_local())
    else:
        own.copy_(shared)
