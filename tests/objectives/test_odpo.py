"""Margins that scores ask for, by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from scored_examples import losses, pairs

from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import Scored
from tiltlm.objectives.odpo import MARGIN, ODPO


def given(apart: float) -> Scored:
    """h = 3."""
    scores = torch.tensor([apart, 0.0], dtype=torch.float64)
    return dataclasses.replace(pairs([2.0], [-1.0], [0.0], [0.0]), scores_N=scores)


def test_odpo_by_hand() -> None:
    """beta h = 0.3; the scores 2 apart: an offset of ln 2, or of half of it."""
    assert losses(ODPO, given(2.0)) == pytest.approx([math.log1p(2 * math.exp(-0.3))])
    assert losses(ODPO, given(2.0), alpha=0.5) == pytest.approx([math.log1p(math.sqrt(2) * math.exp(-0.3))])


def test_margin_by_hand() -> None:
    assert losses(MARGIN, given(2.0)) == pytest.approx([math.log1p(math.exp(2 - 0.3))])


def test_without_an_offset_both_are_dpo() -> None:
    plain = losses(OBJECTIVES["sigmoid"], given(1.0))
    assert losses(ODPO, given(1.0)) == plain
    assert losses(ODPO, given(7.0), alpha=0.0) == plain
    assert losses(MARGIN, given(1e-12)) == pytest.approx(plain)
