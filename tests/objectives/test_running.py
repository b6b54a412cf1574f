"""Objectives that keep statistics from step to step, by hand: where these start, how they move, and the losses."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scored_examples import losses, pairs, with_running

from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.bco import BCO, BcoSettings
from tiltlm.objectives.beta_dpo import BETA_DPO, BetaDpoSettings
from tiltlm.objectives.interface import CHOSEN, REJECTED, Objective, Running, Scored

floats = st.floats(-50, 50, allow_nan=False, width=32)


def running_of(objective: Objective) -> Running:
    assert objective.running is not None
    return objective.running


def answers(ratios: list[float], labels: list[int]) -> Scored:
    count = len(ratios)
    return Scored(
        logps_N=torch.tensor(ratios, dtype=torch.float64, requires_grad=True),
        tokens_N=torch.ones(count, dtype=torch.int64),
        labels_N=torch.tensor(labels, dtype=torch.int8),
        reference_logps_N=torch.zeros(count, dtype=torch.float64),
    )


def test_bco_by_hand() -> None:
    """beta 0.5; rewards 2, -1, 0.5; their mean 0.5; above it by 1.5, -1.5, 0."""
    given_scored = answers([4.0, -2.0, 1.0], [CHOSEN, REJECTED, CHOSEN])
    found = losses(BCO, given_scored, beta=0.5)
    assert found == pytest.approx([math.log1p(math.exp(-1.5)), math.log1p(math.exp(-1.5)), math.log(2)])


@given(st.lists(st.lists(floats, min_size=1, max_size=5), min_size=1, max_size=5))
def test_bco_keeps_the_mean_of_all_rewards_so_far(batches: list[list[float]]) -> None:
    settings = BcoSettings(beta=0.1)
    scored = with_running(answers(batches[0], [CHOSEN] * len(batches[0])), BCO, settings, moved=False)
    for batch in batches:
        now = dataclasses.replace(answers(batch, [CHOSEN] * len(batch)), running=scored.running)
        scored = dataclasses.replace(now, running=running_of(BCO).moved(now, settings))
    rewards = [0.1 * ratio for batch in batches for ratio in batch]
    assert scored.running["answers"] == len(rewards)
    assert float(scored.running["reward"]) == pytest.approx(sum(rewards) / len(rewards), abs=1e-9)
    assert not any(value.requires_grad for value in scored.running.values())


def test_beta_dpo_by_hand() -> None:
    """Margins 3 and 1: their mean 2, M = 0.2, beta_b = 0.1 * (1 + 0.6 * 1.8) = 0.208."""
    found = losses(BETA_DPO, pairs([2.0, 1.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]))
    assert found == pytest.approx([math.log1p(math.exp(-0.208 * 3)), math.log1p(math.exp(-0.208))])


def test_beta_dpo_follows_a_moving_mean_down_to_its_floor() -> None:
    settings = BetaDpoSettings(beta=0.1, alpha=0.6)
    scored = with_running(pairs([2.0], [0.0], [0.0], [0.0]), BETA_DPO, settings)
    assert float(scored.running["margin"]) == pytest.approx(0.2)
    after = dataclasses.replace(pairs([-50.0], [0.0], [0.0], [0.0]), running=scored.running)
    moved = running_of(BETA_DPO).moved(after, settings)
    assert float(moved["margin"]) == pytest.approx(0.9 * 0.2 - 5.0)
    assert float(moved["beta"]) == pytest.approx(1e-3)


def test_without_alpha_beta_dpo_is_dpo() -> None:
    given_scored = pairs([2.0, 1.0], [-1.0, 0.5], [0.3, 0.0], [0.0, 0.1])
    assert losses(BETA_DPO, given_scored, alpha=0.0) == losses(OBJECTIVES["sigmoid"], given_scored)


@pytest.mark.parametrize("objective", [one for one in OBJECTIVES.values() if one.running is not None], ids=str)
def test_what_is_kept_starts_as_it_moves(objective: Objective) -> None:
    """The same names, scalars, and an objective that is coupled, for its loss depends on the whole batch."""
    settings = objective.settings()
    scored = with_running(pairs([2.0], [-1.0], [0.0], [0.0]), objective, settings, moved=False)
    moved = running_of(objective).moved(scored, settings)
    assert moved.keys() == scored.running.keys()
    assert all(value.ndim == 0 and not value.requires_grad for value in moved.values())
    assert objective.needs.coupled
