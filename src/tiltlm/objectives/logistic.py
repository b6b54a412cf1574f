"""The logistic function's logarithm, for objectives: imports torch when it is called, as their modules may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def log_sigmoid(x: Tensor) -> Tensor:
    """log(1 / (1 + exp(-x))), element by element; finite and with a finite gradient for every finite x."""
    import torch.nn.functional as F

    return F.logsigmoid(x)
