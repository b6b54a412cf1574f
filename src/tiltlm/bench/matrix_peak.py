"""How many operations a second this machine's matrix products reach: what a training step is held against."""

from __future__ import annotations

import time

import torch

SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192), "mps": (2048, 4096)}
"""Rows and columns of the square factors; of each kind of device the products of one size are its fastest."""
BURST_SECONDS = 0.2
"""A burst lasts so long: what the clock and the device's queue add is then nothing to it."""


def matrix_peak(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Operations a second of the fastest burst of products of two square matrices of this type.

    Args:
        seconds: how long products of each size are tried, after one burst that is not counted.
    """
    return max(_peak(device, dtype, size, seconds) for size in SIZES[device.type])


def _peak(device: torch.device, dtype: torch.dtype, size: int, seconds: float) -> float:
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)

    def burst(products: int) -> float:
        wait_for(device)
        start = time.perf_counter()
        for _ in range(products):
            torch.mm(a, b, out=out)
        wait_for(device)
        return time.perf_counter() - start

    burst(1)
    products = max(1, round(BURST_SECONDS / burst(1)))
    fastest, spent = float("inf"), 0.0
    while spent < seconds:
        taken = burst(products)
        fastest, spent = min(fastest, taken), spent + taken
    return 2 * size**3 * products / fastest


def wait_for(device: torch.device) -> None:
    """Returns when the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
