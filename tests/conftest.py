"""For all tests: one thread, unless a test runs a real model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

# Tiny models gain nothing from a second thread, and on a busy machine the threads wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def all_threads() -> Iterator[None]:
    """For tests on a real model."""
    before = torch.get_num_threads()
    torch.set_num_threads(torch.multiprocessing.cpu_count())
    yield
    torch.set_num_threads(before)
