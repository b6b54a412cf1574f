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
    """beta 0.5; rewards 2, -1, 0.5: means 1.25 and -1, delta 0.125, of which eq. 7 has the middle, not 0.5, the mean of
    all; above it by 1.875, -1.125, 0.375."""
    given_scored = answers([4.0, -2.0, 1.0], [CHOSEN, REJECTED, CHOSEN])
    found = losses(BCO, given_scored, beta=0.5)
    assert found == pytest.approx([math.log1p(math.exp(-apart)) for apart in (1.875, 1.125, 0.375)])


def test_of_a_kind_that_was_not_seen_bco_takes_the_others_mean() -> None:
    """Rewards 2 and 0 of desirable answers: delta 1; one of none would be their half."""
    found = losses(BCO, answers([4.0, 0.0], [CHOSEN, CHOSEN]), beta=0.5)
    assert found == pytest.approx([math.log1p(math.exp(-1)), math.log1p(math.exp(1))])


@given(
    st.lists(
        st.lists(st.tuples(floats, st.sampled_from([CHOSEN, REJECTED])), min_size=1, max_size=5),
        min_size=1,
        max_size=5,
    )
)
def test_bco_keeps_the_middle_of_both_kinds_means_so_far(batches: list[list[tuple[float, int]]]) -> None:
    settings = BcoSettings(beta=0.1)
    columns = [(list(ratios), list(labels)) for ratios, labels in (zip(*batch, strict=True) for batch in batches)]
    scored = with_running(answers(*columns[0]), BCO, settings, moved=False)
    for ratios, labels in columns:
        now = dataclasses.replace(answers(ratios, labels), running=scored.running)
        scored = dataclasses.replace(now, running=running_of(BCO).moved(now, settings))
    kinds = [[0.1 * ratio for batch in batches for ratio, label in batch if label == own] for own in (CHOSEN, REJECTED)]
    means = [sum(rewards) / len(rewards) for rewards in kinds if rewards]
    assert float(scored.running["delta"]) == pytest.approx(sum(means) / len(means), abs=1e-9)
    assert [float(scored.running[name]) for name in ("desirables", "undesirables")] == [len(own) for own in kinds]
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


@pytest.mark.parametrize(
    "objective", [one for one in OBJECTIVES.values() if one.running is not None], ids=lambda one: one.name
)
def test_what_is_kept_starts_as_it_moves(objective: Objective) -> None:
    """The same names, scalars, and an objective that is coupled, for its loss depends on the whole batch."""
    settings = objective.settings()
    scored = with_running(pairs([2.0], [-1.0], [0.0], [0.0]), objective, settings, moved=False)
    moved = running_of(objective).moved(scored, settings)
    assert moved.keys() == scored.running.keys()
    assert all(value.ndim == 0 and not value.requires_grad for value in moved.values())
    assert objective.needs.coupled
