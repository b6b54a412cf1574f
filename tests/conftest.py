"""For all tests: one thread, unless a test runs a real model; data of others only where they are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from own_data import SHARED

# Tiny models gain nothing from a second thread, and on a busy machine the threads wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def all_threads() -> Iterator[None]:
    """For tests on a real model."""
    before = torch.get_num_threads()
    torch.set_num_threads(torch.multiprocessing.cpu_count())
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out, rather than skips, what reads data of others where they do not lie beside the checkout."""
    if SHARED.is_dir():
        return
    left_out = [item for item in items if item.get_closest_marker("shared_data")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
