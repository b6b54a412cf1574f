"""A command's imports are not searched for garbage; afterwards all is as it was."""

from __future__ import annotations

import gc

import pytest

from tiltlm.cli.imports import importing


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_searched_for_afterwards_as_before(enabled: bool) -> None:
    before, frozen = gc.isenabled(), gc.get_freeze_count()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(KeyError), importing():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == enabled and gc.get_freeze_count() > frozen
    finally:
        (gc.enable if before else gc.disable)()
        gc.unfreeze()
