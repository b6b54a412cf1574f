"""Kernels that give the same bits each time, where a device has faster ones that do not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tiltlm.errors import ConfigError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""PyTorch refuses matrix products on a GPU without it: cuBLAS may choose another algorithm by the memory it finds."""


def require_choice(wanted: bool, device: torch.device) -> None:
    """Refuses `training.deterministic` on a device that has no such choice.

    Raises:
        ConfigError: the device is none of CUDA.
    """
    if wanted and device.type != "cuda":
        known = (
            "whose kernels give the same bits anyway" if device.type == "cpu" else "of which PyTorch knows no others"
        )
        raise ConfigError(f"training.deterministic has no effect on the {device.type}, {known}: remove it.")


@contextmanager
def repeatable_kernels(wanted: bool) -> Iterator[None]:
    """Within, PyTorch takes kernels that give the same bits each time; afterwards what it took before.

    Sums by index (`index_add`, `scatter_add_`, `gather` backwards) and the backward pass of memory-efficient attention
    are those of a step that have two kinds (`torch.use_deterministic_algorithms`).

    Raises:
        ConfigError: the model uses an operation that has no such kernel.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise ConfigError(
            f"training.deterministic: this model cannot be trained so that its bits come again: {error} Leave the "
            "option out."
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
