"""The figures of a saved model, and how much of what was trained is in its files, worked by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import pairs, referenced, tiny_model, trainer

from tiltlm.config import LossConfig, TrainingConfig
from tiltlm.model.scorer import PairScorer
from tiltlm.records import ReferencedPair
from tiltlm.training.held_out import HeldOut, evaluate_saved, exact_logps, share_survived, values_of


def held_out(count: int = 3) -> HeldOut:
    items = [ReferencedPair(pair, -10.0, -12.0) for pair in pairs(count)]
    return HeldOut(items, values_of(items))


def test_the_figures_by_hand() -> None:
    known = held_out()
    saved = values_of(known.pairs) + np.array([[1.0, -1.0], [0.0, 2.0], [-2.0, -3.0]])
    found = evaluate_saved(saved, None, known, LossConfig(beta=0.5), "float32", 0.0)
    margins = [1.0, -1.0, 0.5]
    assert found.figures.margin == pytest.approx(np.mean(margins))
    assert found.figures.accuracy == pytest.approx(2 / 3)
    assert found.figures.loss == pytest.approx(np.mean([math.log1p(math.exp(-margin)) for margin in margins]))
    assert found.margin.mean == pytest.approx(np.mean(margins))
    assert found.chosen_logp_change.mean == pytest.approx(-1 / 3)
    assert found.rejected_logp_change.mean == pytest.approx(-2 / 3)
    assert found.rejected_logp_change.interval is not None
    assert found.saved_as == "float32"
    assert found.survived is None


def test_changes_are_from_the_model_as_loaded_and_rewards_from_the_reference() -> None:
    known = dataclasses.replace(held_out(), start_P2=np.full((3, 2), -5.0))
    found = evaluate_saved(known.start_P2, None, known, LossConfig(beta=1.0), "float32", 0.0)
    assert (found.chosen_logp_change.mean, found.rejected_logp_change.mean) == (0, 0)
    assert found.figures.chosen_reward == 5
    assert found.figures.margin == pytest.approx(-2)


def test_the_share_that_survived() -> None:
    trained = np.array([1.0, 2.0, 3.0, 4.0])
    exactly_half = share_survived(trained / 2, trained)
    assert exactly_half is not None
    assert exactly_half.mean == pytest.approx(0.5)
    assert exactly_half.interval == pytest.approx((0.5, 0.5))
    noisy = share_survived(trained + np.array([0.5, -0.5, 0.5, -0.5]), trained)
    assert noisy is not None and noisy.interval is not None
    assert noisy.mean == pytest.approx(1)
    error = np.std([0.5, -0.5, 0.5, -0.5], ddof=1) / (2 * 2.5)
    assert noisy.interval[1] - noisy.mean == pytest.approx(1.959964 * error)
    assert share_survived(trained, np.zeros(4)) is None
    assert share_survived(trained[:1], trained[:1]) is None


def test_the_saved_models_row_is_the_trainers_own_evaluation(tmp_path: Path) -> None:
    scorer = PairScorer(tiny_model())
    items = referenced(scorer, pairs(7), tmp_path)
    with torch.no_grad():
        for parameter in scorer.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    known = HeldOut(items, values_of(items))
    logps = exact_logps(scorer, known.tokenized, token_budget=50)
    found = evaluate_saved(logps, None, known, LossConfig(), "float32", 0.0).figures
    row = trainer(scorer, TrainingConfig()).evaluate(items, 0, 0.0)
    for name in ("loss", "margin", "accuracy", "chosen_reward", "rejected_logp", "accuracy_interval"):
        assert getattr(found, name) == pytest.approx(getattr(row, name), abs=1e-5), name
