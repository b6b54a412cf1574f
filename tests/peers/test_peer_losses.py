"""Losses and gradients are those of the peers' own code, or differ exactly as is said."""

from __future__ import annotations

import pytest
from compare_with_peers import FEW, PAGE, largest_difference, page, read_record
from halos_losses import is_there
from peer_comparisons import COMPARISONS, WITHOUT_PEER, Comparison

from tiltlm.config.from_trl.loss_translation import OF_TRL
from tiltlm.objectives import OBJECTIVES

PACKAGES = {"TRL": "trl", "Liger": "liger_kernel"}


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda comparison: comparison.name)
def test_ours_is_theirs_or_differs_as_said(comparison: Comparison) -> None:
    if comparison.peer != "HALOs":
        pytest.importorskip(
            PACKAGES[comparison.peer], reason="an environment of scripts/make_peers_environment.py has it"
        )
    elif not is_there():
        pytest.skip("HALOS names no checkout of HALOs: scripts/halos_losses.py")
    if not comparison.there:
        pytest.skip(f"there is no objective {comparison.objective}")
    found = largest_difference(comparison.ours, comparison.theirs, FEW)
    if not comparison.differs:
        assert max(found.of_losses, found.of_gradients) <= comparison.within
        return
    assert found.of_losses > 1e-3
    assert comparison.mended is not None
    mended = largest_difference(comparison.ours, comparison.mended, FEW)
    assert max(mended.of_losses, mended.of_gradients) <= comparison.within


def test_what_is_recorded_is_what_is_compared_and_says_the_same() -> None:
    """Needs no peer: the record is read, not made."""
    record = read_record()
    recorded = {(one.objective, one.peer, one.call): one for one in record.comparisons}
    assert list(recorded) == [(one.objective, one.peer, one.call) for one in COMPARISONS]
    for one in COMPARISONS:
        found = recorded[(one.objective, one.peer, one.call)]
        assert found.agrees == (not one.differs)
        told = found.difference if found.agrees else found.mended
        assert told is not None
        assert max(told.of_losses, told.of_gradients) <= one.within


def test_the_page_has_the_record() -> None:
    assert page(read_record()) == PAGE.read_text(encoding="utf-8"), "run `python scripts/compare_with_peers.py`"


def test_every_loss_of_trl_is_compared() -> None:
    compared = {one.objective for one in COMPARISONS}
    assert set(OF_TRL) <= compared


def test_every_objective_of_pairs_is_compared_or_has_no_peer() -> None:
    of_pairs = {name for name, one in OBJECTIVES.items() if one.needs.unit in ("pair", "completion")}
    compared = {one.objective for one in COMPARISONS}
    assert of_pairs - compared <= set(WITHOUT_PEER)
    assert not compared & set(WITHOUT_PEER)
