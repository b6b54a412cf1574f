"""For all tests: one thread, unless a test runs a real model; data of others only where they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from own_data import SHARED

if TYPE_CHECKING:
    from broken_runs import Place

# Tiny models gain nothing from a second thread, and on a busy machine the threads wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def all_threads() -> Iterator[None]:
    """For tests on a real model."""
    before = torch.get_num_threads()
    torch.set_num_threads(torch.multiprocessing.cpu_count())
    yield
    torch.set_num_threads(before)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Place:
    """A working folder in which a tiny run is broken."""
    from broken_runs import broken_place

    return broken_place(tmp_path / "here", monkeypatch, capsys)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have no curves."""
    from broken_runs import leave_undrawn

    leave_undrawn(monkeypatch)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out, rather than skips, what reads data of others where they do not lie beside the checkout."""
    if SHARED.is_dir():
        return
    left_out = [item for item in items if item.get_closest_marker("shared_data")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
