"""Logarithms that objectives take of probabilities: they import torch when called, as objectives' modules may not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CERTAIN = -1e-6
"""Log-probability from which on log(1 - p) is continued by its tangent; there its slope is a million."""


def log_sigmoid(x: Tensor) -> Tensor:
    """log(1 / (1 + exp(-x))), element by element; finite and with a finite gradient for every finite x."""
    import torch.nn.functional as F

    return F.logsigmoid(x)


def log_one_less_exp(a: Tensor) -> Tensor:
    """log(1 - exp(a)) of log-probabilities, element by element, and its tangent where a is above CERTAIN.

    Through expm1, as 1 - exp(a) loses its digits where a is near 0. Finite, with a finite gradient, for every finite a.
    """
    uncertain = (-a.clamp(max=CERTAIN).expm1()).log()
    slope = math.exp(CERTAIN) / math.expm1(CERTAIN)
    # One or the other: the gradient of their sum, one of them flat, is a difference of large numbers (divergences.py).
    return uncertain.where(a <= CERTAIN, math.log(-math.expm1(CERTAIN)) + slope * (a - CERTAIN))
