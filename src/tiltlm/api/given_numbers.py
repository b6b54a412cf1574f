"""Numbers that a program gives, in lists, arrays or tensors: each argument as one tensor a completion."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from tiltlm.api.listed_answers import ANSWERS
from tiltlm.errors import ConfigError


def rows_of(given: Mapping[str, Any]) -> tuple[dict[str, list[Tensor]], bool]:
    """Each argument as one tensor a completion, all log-probabilities of one type; and whether any was a tensor.

    Raises:
        ConfigError: an argument is of another shape, or holds something else than numbers.
    """
    tensors = [v for value in given.values() for v in (value, *_parts(value)) if isinstance(v, Tensor)]
    types = [tensor.dtype for tensor in tensors if tensor.is_floating_point()] or [torch.float64]
    dtype = functools.reduce(torch.promote_types, types)
    device = tensors[0].device if tensors else None
    rows = {}
    for argument, value in given.items():
        is_count, of_lists = argument.endswith("_tokens"), ANSWERS in argument or argument == "scores"
        of_tokens = of_lists or argument.endswith(("_token_logps", "_log_squares"))
        of_row = torch.float64 if is_count else dtype
        try:
            rows[argument] = [torch.as_tensor(row, dtype=of_row, device=device) for row in _parts(value)]
            if argument.endswith("_kl"):  # a sum, or what is to be summed
                rows[argument] = [row.sum() for row in rows[argument]]
        except (TypeError, ValueError) as error:
            raise ConfigError(f"`{argument}` must hold numbers: {error}.") from error
        if not rows[argument] or any(row.ndim != of_tokens or row.numel() == 0 for row in rows[argument]):
            shape = "a list of one number a token" if of_tokens else "one number"
            of_what = "each completion"
            if of_lists:
                shape, of_what = "a list of one number an answer", "each prompt"
            raise ConfigError(f"`{argument}` must be a list or tensor with {shape} for {of_what}.")
        if is_count and any(bool(((row < 1) | (row != row.floor())).any()) for row in rows[argument]):
            raise ConfigError(f"`{argument}` must hold whole numbers from 1 on: how many tokens each completion has.")
    return rows, bool(tensors)


def lists_of_rows(given: Mapping[str, Any]) -> tuple[dict[str, list[list[Tensor]]], bool]:
    """Each argument as one tensor an answer in a list for each prompt; and whether any was a tensor.

    Raises:
        ConfigError: an argument is of another shape, or holds something else than numbers.
    """
    flat = {argument: [_parts(answers) for answers in _parts(value)] for argument, value in given.items()}
    answers = {argument: [answer for own in lists for answer in own] for argument, lists in flat.items()}
    tensors = [answer for own in answers.values() for answer in own if isinstance(answer, Tensor)]
    types = [tensor.dtype for tensor in tensors if tensor.is_floating_point()] or [torch.float64]
    dtype, device = functools.reduce(torch.promote_types, types), tensors[0].device if tensors else None
    found = {}
    for argument, lists in flat.items():
        try:
            rows = [[torch.as_tensor(one, dtype=dtype, device=device) for one in own] for own in lists]
        except (TypeError, ValueError) as error:
            raise ConfigError(f"`{argument}` must hold numbers: {error}.") from error
        if not rows or any(not own or any(one.ndim != 1 or not len(one) for one in own) for own in rows):
            raise ConfigError(
                f"`{argument}` must be a list with a list for each prompt, which holds a list or tensor of one number "
                "a token for each answer."
            )
        found[argument] = rows
    return found, bool(tensors)


def _parts(value: Any) -> list[Any]:
    """What a list or tensor consists of; nothing where it is a single number or a text."""
    if isinstance(value, str) or (isinstance(value, Tensor) and value.ndim == 0):
        return []
    return list(value) if isinstance(value, Iterable) else []
