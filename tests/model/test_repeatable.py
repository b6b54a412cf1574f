"""Kernels that give the same bits: asked for where there is a choice, and put back afterwards."""

from __future__ import annotations

import pytest
import torch

from tiltlm.errors import ConfigError
from tiltlm.model.repeatable import WORKSPACE, repeatable_kernels, require_choice


def test_on_the_cpu_the_option_has_no_effect_and_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.deterministic has no effect on the cpu"):
        require_choice(True, torch.device("cpu"))
    with pytest.raises(ConfigError, match="has no effect on the mps"):
        require_choice(True, torch.device("mps"))
    require_choice(False, torch.device("cpu"))
    require_choice(True, torch.device("cuda"))


def test_they_are_asked_for_within_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    with repeatable_kernels(False):
        assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(ZeroDivisionError), repeatable_kernels(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        raise ZeroDivisionError
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_such_a_kernel_is_named() -> None:
    with (
        pytest.raises(ConfigError, match=r"training\.deterministic: .*put_.*Leave the option out"),
        repeatable_kernels(True),
    ):
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
    with pytest.raises(RuntimeError, match="another trouble"), repeatable_kernels(True):
        raise RuntimeError("another trouble")
