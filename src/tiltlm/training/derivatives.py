"""Gradients held to central finite differences, also where a part of a function is kept from its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

STEP = 1e-6
"""How far a value is moved either way, in float64: rounding costs some 1e-10 of a derivative, curvature some 1e-12."""

_CUTS = (torch.Tensor.detach, torch.detach, torch.Tensor.data.__get__)  # type: ignore[attr-defined]


class HeldFixed(TorchFunctionMode):
    """Within, what is detached is as it was when this was first entered: what has no gradient does not move either."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[Tensor] | None = None
        self._place = 0

    def __enter__(self) -> HeldFixed:
        self._recording = self._kept is None
        self._kept = self._kept or []
        self._place = 0
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if func not in _CUTS:
            return made
        assert self._kept is not None
        if self._recording:
            self._kept.append(made)
            return made
        self._place += 1
        return self._kept[self._place - 1] if self._place <= len(self._kept) else made


def finite_differences(total: Callable[[Sequence[Tensor]], Tensor], values: Sequence[Tensor]) -> list[Tensor]:
    """The derivatives of a scalar by each element of some float64 tensors, by moving them one at a time."""
    slopes = []
    for number, value in enumerate(values):
        slope = torch.zeros_like(value)
        for place in range(value.numel()):
            ends = []
            for step in (STEP, -STEP):
                moved = value.clone()
                moved.view(-1)[place] += step
                ends.append(total([*values[:number], moved, *values[number + 1 :]]))
            slope.view(-1)[place] = (ends[0] - ends[1]) / (2 * STEP)
        slopes.append(slope)
    return slopes
