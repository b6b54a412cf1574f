"""Dithered weights: what bfloat16 rounds away of a training step, given back on average.

Under autocast the float32 weights are rounded to bfloat16 wherever they are used. A weight in the middle of a rounding
cell, as every weight of a checkpoint stored in bfloat16 is, hides any step below half a unit in the last place; a
weight on the border between two cells, as many are that come from 4-bit blocks, jumps a whole unit at the smallest
step. So before training a fixed random number is added to each weight that is multiplied with, uniform within half a
unit of it. Rounded then, a weight is right on average (theory.pdf, Proposition 20 (dither)), and so is every change of
it. Policy and reference share the numbers, so what they add to one they add to the other, and they are taken off again
before the model is saved. This is subtractive dither (L. Schuchman, IEEE Trans. Comm. Tech. 12, 1964).

The numbers are added to the bit pattern. Read as an integer, it counts the float32 values from zero upwards, and every
65,536th of them is a bfloat16 value; between two neighbours the count is linear in the value. So one integer uniform
in [-32767, 32767] is half a unit either way, right at the powers of two as well, where the unit changes, and taking it
off again gives the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tiltlm.distributed.shares import own_part

HALF_UNIT = 1 << 15
"""Half a bfloat16 unit, counted in float32 values."""

BLOCK = 1 << 22
"""Weights whose numbers come of one digest."""
PIECE = 1 << 15
"""Weights that a CPU works on at once: their scratch stays in its cache, and PyTorch shares no operation on so few out
to threads, which on a busy machine wait for each other. Other devices take a whole block."""

# Weights below 2^-125, zeros first of all, keep their value: near zero bfloat16 resolves any step.
_SMALLEST = 2 << 23
_LARGEST = 0x7F000000
_MAGNITUDE, _SIGN = 0x7FFFFFFF, -0x80000000


def noise(name: str, start: int, count: int, device: torch.device | None = None) -> Tensor:
    """The random integers of weights `start` to `start + count` (row-major) of the parameter `name`.

    A function of name and index alone: whoever holds a part of a parameter can make that part's numbers.

    Returns:
        int32, shape (count,), uniform in [-32767, 32767]: a weight that bfloat16 can hold is never carried to the
        border of its cell, so rounding gives it back.
    """
    parts = [torch.empty(0, dtype=torch.int32, device=device)]
    while count > 0:
        block, offset = divmod(start, BLOCK)
        length = min(count, BLOCK - offset)
        digest = hashlib.blake2b(f"{name}/{block}".encode(), digest_size=8).digest()
        first, second = (int.from_bytes(digest[at : at + 4], "little", signed=True) for at in (0, 4))
        counter = torch.arange(offset, offset + length, dtype=torch.int32, device=device)
        parts.append(_shifted(_mixed(_mixed(counter.add_(first)).bitwise_xor_(second)), 16).sub_(HALF_UNIT))
        start, count = start + length, count - length
    return torch.cat(parts).clamp_(min=1 - HALF_UNIT)


def _mixed(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers, in place, each bit of whose result depends on every bit given.

    Source: C. Wellons, https://nullprogram.com/blog/2018/07/31/ ("lowbias32").
    """
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - (1 << 32))):
        x.bitwise_xor_(_shifted(x, shift)).mul_(factor)
    return x.bitwise_xor_(_shifted(x, 16))


def _shifted(x: Tensor, bits: int) -> Tensor:
    """`x >> bits` of 32-bit integers without their sign."""
    return (x >> bits).bitwise_and_((1 << (32 - bits)) - 1)


def rounded_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The trained parameters that autocast rounds: those of modules that multiply with a matrix, their biases included.

    What is not trained is rounded alike in policy and reference, and no change of it can be lost.

    Tables that are only looked up, and the weights of norms, stay in float32. A table that is also the output layer is
    multiplied with.
    """
    rounded = {
        id(parameter)
        for module in model.modules()
        if not isinstance(module, nn.Embedding) and any(own.dim() > 1 for own in module.parameters(recurse=False))
        for parameter in module.parameters(recurse=False)
        if parameter.requires_grad
    }
    yield from ((name, parameter) for name, parameter in model.named_parameters() if id(parameter) in rounded)


@torch.no_grad()
def add_dither(model: nn.Module) -> None:
    """Adds its number to each weight that bfloat16 arithmetic would round, in place."""
    for name, parameter in rounded_parameters(model):
        weights, first = own_part(parameter.detach())
        move(weights, name, 1, first)


@torch.no_grad()
def remove_dither(model: nn.Module) -> None:
    """Takes the numbers off again, in place. Weights that were not trained are what they were, to the bit.

    A trained weight keeps what training added to it. (Where its number had carried it across a power of two, its
    change was counted in the unit of the other side: such weights, fewer than one in a hundred, keep between half of
    their change and twice it.)
    """
    for name, parameter in rounded_parameters(model):
        weights, first = own_part(parameter.detach())
        move(weights, name, -1, first)


def move(weights: Tensor, name: str, direction: int, first: int = 0) -> None:
    """Adds (1) or takes off (-1) the numbers of `name`, in place, in the bit pattern of contiguous float32 weights.

    first: which of its numbers is the first weight's, where these are a part of a parameter.
    """
    if weights.dtype is not torch.float32:
        return  # wider arithmetic is not rounded
    bits = weights.detach().view(-1).view(torch.int32)
    piece = PIECE if bits.device.type == "cpu" else BLOCK
    for start in range(0, bits.numel(), piece):
        part = bits[start : start + piece]
        magnitude = part & _MAGNITUDE
        numbers = noise(name, first + start, part.numel(), part.device)
        numbers *= (magnitude >= _SMALLEST) & (magnitude < _LARGEST)
        # The integer of a negative number counts away from zero too once its sign bit is set aside.
        part += numbers * direction
