"""Matrix products in a stated arithmetic: rounded factors, sums that are not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor


def product(a_MK: Tensor, b_KN: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix product in the arithmetic of `dtype`, summed and returned in at least float32, shape (M, N).

    On a CPU with bfloat16 units float32 factors are rounded on their way into them, and sums leave them as they are;
    on a CPU without, nothing is rounded. A GPU is given rounded factors and asked for float32 sums.
    """
    with torch.autocast(a_MK.device.type, enabled=False):
        if dtype not in (torch.bfloat16, torch.float16):
            return a_MK.to(dtype) @ b_KN.to(dtype)
        if a_MK.device.type == "cuda":
            return torch.mm(a_MK.to(dtype), b_KN.to(dtype), out_dtype=torch.float32)
        with bfloat16_units(wanted=dtype is torch.bfloat16):
            return a_MK.float() @ b_KN.float()


def rounded_product(a_MK: Tensor, b_KN: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix product in the arithmetic of `dtype`, rounded to it on a CPU, shape (M, N).

    For gradients, which autocast rounds so in every linear layer. A CPU without matrix units, but with bfloat16
    products, multiplies float32 factors as they are, which takes it twice as long.
    """
    if a_MK.device.type != "cpu":
        return product(a_MK, b_KN, dtype)
    with torch.autocast("cpu", enabled=False):
        return a_MK.to(dtype) @ b_KN.to(dtype)


@contextmanager
def bfloat16_units(wanted: bool) -> Iterator[None]:
    """Lets a CPU's float32 products use its bfloat16 units, within."""
    products = cast(Any, torch.backends.mkldnn).matmul
    before = products.fp32_precision
    products.fp32_precision = "bf16" if wanted else before
    try:
        yield
    finally:
        products.fp32_precision = before
