"""`rpo` and `mpo` against their equations, worked by hand and by plain Python."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_pairs import AT_REFERENCE, BY_HAND, Pair, any_pair, ell, loss_of, rewards_of
from scored_examples import losses, pairs

from tiltlm.objectives.absolute import BCO_PAIR
from tiltlm.objectives.dpo import SIGMOID
from tiltlm.objectives.mixes import MPO, RPO, MpoSettings, mpo


def test_rpo_worked_by_hand() -> None:
    """DPO's 0.403186 and 10 nats over 4 tokens, 2.5 (arXiv 2404.19733, eq. 1)."""
    assert loss_of(RPO, BY_HAND) == pytest.approx(2.903186, abs=1e-6)
    assert loss_of(RPO, BY_HAND, nll_weight=0.0) == loss_of(SIGMOID, BY_HAND)
    assert loss_of(RPO, AT_REFERENCE) == pytest.approx(math.log(2) + 3)
    assert rewards_of(RPO, BY_HAND) == pytest.approx([0.2, -0.5])


@given(any_pair, st.floats(0.01, 2), st.floats(0, 2))
@settings(deadline=None)
def test_rpo_as_plain_python_has_it(pair: Pair, beta: float, weight: float) -> None:
    wanted = ell(beta * pair.h) - weight * pair.chosen / pair.tokens[0]
    assert loss_of(RPO, pair, beta=beta, nll_weight=weight) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_imitation_is_averaged_by_answer_not_over_the_batchs_tokens() -> None:
    """Answers of 1 and 4 tokens with 4 nats each: (4 + 1) / 2 = 2.5 on average; over all tokens it were 8 / 5 = 1.6."""
    short, long = Pair(-4, -4, -4, -4, (1, 1)), Pair(-4, -4, -4, -4, (4, 1))
    assert (loss_of(RPO, short) + loss_of(RPO, long)) / 2 - math.log(2) == pytest.approx(2.5)


def test_mpo_worked_by_hand() -> None:
    """Rewards 0.2 and -0.5, their mean delta -0.15: 0.8 * 0.403186 + 0.2 * (ln(1+e^-0.35) + ln(1+e^-0.35)) + 2.5
    = 0.322549 + 0.213353 + 2.5 (arXiv 2411.10442, section 3.2)."""
    assert loss_of(MPO, BY_HAND) == pytest.approx(0.322549 + 0.4 * math.log1p(math.exp(-0.35)) + 2.5, abs=1e-6)
    assert loss_of(MPO, AT_REFERENCE) == pytest.approx(1.2 * math.log(2) + 3)


def test_delta_is_the_mean_of_all_rewards_so_far() -> None:
    """First step 0.2, -0.5; then 0.4, 0.1, 0.3, -0.1: means -0.15 and 0.4 / 6; equal to one over all six."""
    assert MPO.running is not None
    first, second = pairs([2], [-5], [0], [0]), pairs([4, 3], [1, -1], [0, 0], [0, 0])
    own = MpoSettings(beta=0.1)
    start = {name: first.logps_N.new_tensor(value) for name, value in MPO.running.start(own).items()}
    after_first = MPO.running.moved(replace(first, running=start), own)
    assert float(after_first["delta"]) == pytest.approx(-0.15)
    after_second = MPO.running.moved(replace(second, running=after_first), own)
    assert float(after_second["delta"]) == pytest.approx((0.2 - 0.5 + 0.4 + 0.1 + 0.3 - 0.1) / 6)
    assert float(after_second["desirables"]) == float(after_second["undesirables"]) == 3
    assert all(not value.requires_grad for value in after_second.values())


@given(st.lists(any_pair, min_size=1, max_size=4), st.floats(0.01, 1), st.floats(0, 2), st.floats(0, 2))
@settings(deadline=None)
def test_mpo_as_plain_python_has_it(given_pairs: list[Pair], beta: float, preference: float, quality: float) -> None:
    rewards = [(beta * pair.up, beta * pair.down) for pair in given_pairs]
    delta = sum(up + down for up, down in rewards) / (2 * len(rewards))
    wanted = [
        preference * ell(up - down) + quality * (ell(up - delta) + ell(delta - down)) - pair.chosen
        for pair, (up, down) in zip(given_pairs, rewards, strict=True)
    ]
    columns = zip(*((p.chosen, p.rejected, p.reference_chosen, p.reference_rejected) for p in given_pairs), strict=True)
    found = losses(MPO, pairs(*columns), beta=beta, preference_weight=preference, quality_weight=quality)
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_with_delta_0_its_parts_are_those_of_dpo_and_trls_bco_pair() -> None:
    given_pair = pairs([-10], [-30], [-12], [-25], tokens=(4, 10))
    zero = {"delta": given_pair.logps_N.new_tensor(0.0)}
    found = mpo(replace(given_pair, running=zero), MpoSettings()).losses_U.item()
    wanted = 0.8 * loss_of(SIGMOID, BY_HAND) + 0.2 * loss_of(BCO_PAIR, BY_HAND, beta=0.1) + 2.5
    assert found == pytest.approx(wanted)
