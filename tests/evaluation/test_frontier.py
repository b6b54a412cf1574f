"""The limit, best-of-n and shares against worlds whose answers can be listed (theory.pdf, Corollary 2 (frontier))."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.world import World, best_of_n, expected_reward, kl, random_world, tilt
from tiltlm.evaluation.frontier import Answered, frontier
from tiltlm.evaluation.limit import FEWEST_EFFECTIVE, RewardLimit, best_of, best_of_kl
from tiltlm.runs.frontier_record import FrontierPoint, FrontierSettings

rewards = st.lists(
    st.lists(st.floats(-3, 3).map(lambda value: round(value, 3)), min_size=12, max_size=12), min_size=1, max_size=5
).map(np.array)


def settings(reference_PN: np.ndarray, answers: int) -> FrontierSettings:
    prompts, drawn = reference_PN.shape
    return FrontierSettings(
        reward="known",
        prompts=prompts,
        reference_answers=drawn,
        answers=answers,
        temperature=1.0,
        max_new_tokens=1,
        seed=0,
    )


def listed(world: World) -> np.ndarray:
    """Rewards of answers that occur as often as the reference gives them, so that sums over them are expectations."""
    times = (world.log_ref_Y.exp() * 40_000).round().int()
    return torch.repeat_interleave(world.reward_Y, times).numpy()[None, :]


@pytest.mark.parametrize("beta", [5.0, 1.0, 0.4])
def test_the_limit_is_the_exponential_tilt(beta: float) -> None:
    world = random_world(12, seed=4)
    optimum = tilt(world, beta)
    found = RewardLimit(listed(world)).at(kl(optimum, world.log_ref_Y))
    assert found.reward == pytest.approx(expected_reward(world, optimum), abs=2e-3)
    assert found.beta == pytest.approx(beta, rel=2e-2)


def test_one_exchange_rate_holds_for_all_prompts() -> None:
    """What is limited is the mean KL, so nats are spent where they buy most: checked against all ways to split them."""
    worlds = [random_world(6, seed) for seed in (1, 2)]
    rewards_PN = np.concatenate(
        [listed(world)[:, :: len(listed(world)[0]) // 30_000 or 1][:, :30_000] for world in worlds]
    )
    price = 0.8
    split = [
        np.mean([RewardLimit(rewards_PN[place : place + 1]).at(own).reward for place, own in enumerate(prices)])
        for share in np.linspace(0.02, 0.98, 49)
        for prices in [(2 * price * share, 2 * price * (1 - share))]
    ]
    assert RewardLimit(rewards_PN).at(price).reward == pytest.approx(max(split), abs=2e-3)


@given(rewards, st.floats(0.01, 2.0))
def test_no_weights_on_the_answers_do_better_at_the_price(rewards_PN: np.ndarray, price: float) -> None:
    found = RewardLimit(rewards_PN).at(price)
    generator = np.random.default_rng(0)
    answers = rewards_PN.shape[1]
    for sharpness in (0.3, 1.0, 3.0):
        logits = sharpness * (generator.normal(size=rewards_PN.shape) + 2 * rewards_PN)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        divergence = (weights * np.log(np.maximum(weights, 1e-300) * answers)).sum(1).mean()
        if divergence <= price:
            assert (weights * rewards_PN).sum(1).mean() <= found.reward - found.bias + 1e-7


@given(rewards)
def test_the_limit_rises_from_the_reference_and_is_concave(rewards_PN: np.ndarray) -> None:
    limit = RewardLimit(rewards_PN)
    along = [limit.at(price) for price in np.linspace(0, 3, 13)]
    raw = [one.reward - one.bias for one in along]
    assert raw[0] == pytest.approx(rewards_PN.mean(), abs=1e-9)
    assert all(new >= old - 1e-9 for old, new in itertools.pairwise(raw))
    assert all(b - a >= c - b - 1e-6 for a, b, c in zip(raw, raw[1:], raw[2:], strict=False))
    assert raw[-1] <= rewards_PN.max(1).mean() + 1e-9


@pytest.mark.parametrize("answers", [32, 128])
def test_the_estimate_is_too_low_and_is_made_good(answers: int) -> None:
    """Averaged over many draws, where the effective number is not thin: theory says the sign, the correction does the
    rest to a fiftieth of the gain."""
    generator = np.random.default_rng(3)
    reference_PY, reward_PY = generator.dirichlet(np.ones(50), 12), generator.normal(size=(12, 50))
    times = [
        np.repeat(reward, np.round(own * 20_000).astype(int))
        for own, reward in zip(reference_PY, reward_PY, strict=True)
    ]
    shortest = min(map(len, times))
    exact = RewardLimit(np.stack([generator.permutation(own)[:shortest] for own in times]))
    price = 0.35 if answers == 32 else 0.9
    truth = exact.at(price).reward
    raw, made_good, effective = [], [], []
    for _ in range(300):
        drawn = [generator.choice(50, answers, p=own) for own in reference_PY]
        found = RewardLimit(np.stack([own[chosen] for own, chosen in zip(reward_PY, drawn, strict=True)])).at(price)
        raw.append(found.reward - found.bias)
        made_good.append(found.reward)
        effective.append(found.effective)
    gain = truth - exact.reference
    assert np.mean(effective) > FEWEST_EFFECTIVE
    assert np.mean(raw) < truth
    off = abs(float(np.mean(made_good)) - truth)
    assert off < 0.02 * gain and off < truth - float(np.mean(raw))


def test_a_price_beyond_the_answers_buys_the_best_of_them_and_is_thin() -> None:
    found = RewardLimit(np.array([[0.0, 0.5, 1.0, 2.0]])).at(9.0)
    assert found.reward - found.bias == pytest.approx(2.0)
    assert (found.beta, found.thin) == (0.0, True)


def test_rare_successes_tell_of_no_limit_however_many_prompts_have_none() -> None:
    """One answer in 1,000 is right. Prompts without a hit have all of their answers alike, and hide nothing of that."""
    drawn = (np.random.default_rng(1).random((32, 128)) < 0.001).astype(float)
    limit = RewardLimit(drawn)
    assert drawn.sum() == 3
    assert all(limit.at(price).thin for price in (0.2, 1.0, 4.0))
    told = point(drawn, np.full((32, 4), 0.05), 1.0 + 0.1 * np.linspace(-1, 1, 128).reshape(32, 4))
    assert (told.limit, told.share) == (None, None) and "draw about" in str(told.why)

    # The truth at a nat, and what would have been told.
    assert _binary_kl(0.221, 0.001) == pytest.approx(1.0, abs=0.01) and limit.at(1.0).reward < 0.1


def test_common_successes_tell_of_it() -> None:
    drawn = (np.random.default_rng(1).random((32, 128)) < 0.3).astype(float)
    drawn[0] = 0.0  # a prompt that nobody hits
    found = RewardLimit(drawn).at(0.3)
    price = 0.3 * 32 / 31
    hits = max(np.linspace(0.3, 0.99, 5000), key=lambda h: h if _binary_kl(h, 0.3) <= price else 0.0)
    assert not found.thin and found.reward == pytest.approx(hits * 31 / 32, abs=0.03)
    beyond = point(drawn, np.ones((32, 4)), 3 + 0.1 * np.linspace(-1, 1, 128).reshape(32, 4))
    assert beyond.limit is None and "nobody knows of better ones" in str(beyond.why)
    alike = RewardLimit(np.ones((4, 16))).at(0.5)
    assert (alike.effective, alike.thin) == (16.0, False)


def _binary_kl(one: float, other: float) -> float:
    return one * math.log(one / other) + (1 - one) * math.log((1 - one) / (1 - other))


def test_the_best_of_n_is_the_mean_over_all_choices() -> None:
    drawn = np.random.default_rng(0).normal(size=(2, 7))
    for n in range(1, 8):
        slow = [np.mean([max(some) for some in itertools.combinations(own, n)]) for own in drawn]
        np.testing.assert_allclose(best_of(drawn, n), slow)
    with pytest.raises(ValueError, match="best of 8 of 7"):
        best_of(drawn, 8)


def test_the_kl_of_the_best_of_n_is_a_bound_that_many_answers_reach() -> None:
    world = random_world(40, seed=0)
    for n in (2, 4, 8):
        assert kl(best_of_n(world, n), world.log_ref_Y) <= best_of_kl(n)
    # Of a reward without ties: the density is n u^(n-1) on ranks.
    ranks = (np.arange(200_000) + 0.5) / 200_000
    for n in (2, 4):
        assert np.mean(n * ranks ** (n - 1) * np.log(n * ranks ** (n - 1))) == pytest.approx(best_of_kl(n), abs=1e-3)


def point(reference_PN: np.ndarray, reward_PM: np.ndarray, ratio_PM: np.ndarray) -> FrontierPoint:
    found = frontier(
        reference_PN, [Answered("trained", 8, reward_PM, ratio_PM)], settings(reference_PN, reward_PM.shape[1])
    )
    return found.path[0]


def test_the_optimum_reaches_all_of_the_possible_gain_and_half_of_it_half() -> None:
    generator = np.random.default_rng(5)
    reference_PN = generator.normal(size=(16, 256))
    found = RewardLimit(reference_PN).at(0.5)
    prompt = np.linspace(-0.1, 0.1, 16)[:, None]
    ratio_PM = 0.5 + 0.2 * np.linspace(-1, 1, 16)[:, None]
    middle = reference_PN.mean(1, keepdims=True)
    for share in (1.0, 0.5):
        reward_PM = middle + share * (found.reward - reference_PN.mean()) + prompt
        told = point(reference_PN, reward_PM, ratio_PM).share
        assert told is not None and told.interval is not None
        assert told.mean == pytest.approx(share)
        assert told.interval[0] < share < told.interval[1]


def test_resamples_agree_with_the_limit_of_each() -> None:
    generator = np.random.default_rng(6)
    rewards_PN = generator.normal(size=(9, 64))
    chosen_BP = generator.integers(0, 9, (20, 9))
    shares_BP = np.stack([np.bincount(chosen, minlength=9) for chosen in chosen_BP]) / 9
    kl_B = generator.uniform(0.05, 1.0, 20)
    reference_B, limit_B = RewardLimit(rewards_PN).resampled(shares_BP, kl_B)
    slow = [RewardLimit(rewards_PN[chosen]) for chosen in chosen_BP]
    np.testing.assert_allclose(reference_B, [one.reference for one in slow])
    np.testing.assert_allclose(limit_B, [one.at(kl).reward for one, kl in zip(slow, kl_B, strict=True)], atol=2e-3)


def test_a_share_is_refused_where_it_would_say_nothing() -> None:
    generator = np.random.default_rng(7)
    reference_PN, after = generator.normal(size=(12, 32)), generator.normal(size=(12, 4))
    still = point(reference_PN, after, generator.normal(size=(12, 4)))
    assert still.share is None and "not shown to be above nought" in str(still.why)
    far = point(reference_PN, after + 1, np.full((12, 4), 6.0))
    assert far.share is None and far.limit is None and "answers a prompt" in str(far.why)
    same = point(np.ones((12, 32)), np.ones((12, 4)), np.full((12, 4), 0.5))
    assert same.share is None and "nothing to gain" in str(same.why)


@pytest.mark.parametrize(("price", "advice"), [(3.0, "draw about "), (6.0, "draw about 2018 "), (9.0, "will not tell")])
def test_as_many_answers_are_asked_for_as_the_price_needs_at_least(price: float, advice: str) -> None:
    """By Jensen no fewer than 5 exp(KL) have an effective number of 5; what the few drawn suggest is far below it."""
    drawn = np.random.default_rng(7).normal(size=(12, 32))
    why = str(point(drawn, np.ones((12, 4)), price + np.linspace(-0.1, 0.1, 48).reshape(12, 4)).why)
    assert advice in why and ("--reference-answers" in why) == (price < 9)


def test_the_curve_goes_as_far_as_it_is_told_and_its_chords_leave_what_is_reachable() -> None:
    limit = RewardLimit(np.random.default_rng(8).normal(size=(16, 128)))
    curve = limit.curve(41, 6.0)
    assert len(curve) == 41 and not curve[-1].thin and limit.at(curve[-1].kl + 0.01).thin
    assert limit.curve(41, 0.5)[-1].kl == pytest.approx(0.5)
    prices = [point.kl for point in curve]
    between = np.linspace(0.0, prices[-1], 200)
    chords = np.interp(between, prices, [point.reward for point in curve])
    cut = [limit.at(price).reward - chord for price, chord in zip(between, chords, strict=True)]
    assert max(cut) < 0.01 * (curve[-1].reward - limit.reference)


def test_beta_is_unbounded_at_no_price_and_falls_from_there() -> None:
    drawn = np.random.default_rng(8).normal(size=(4, 64))
    first, *rest = frontier(drawn, [], settings(drawn, 1)).limit
    betas = [one.beta for one in rest if one.beta is not None]
    assert (first.kl, first.beta) == (0.0, None) and len(betas) == len(rest)
    assert betas == sorted(betas, reverse=True)


def test_intervals_of_the_share_cover_it() -> None:
    """In a world of many prompts, of which experiments draw some: a policy tilted by a reward that it sees dimly."""
    generator = np.random.default_rng(1)
    prompts, answers, experiments = 1500, 40, 100
    reference_PY = generator.dirichlet(np.ones(answers), prompts)
    reward_PY = 0.5 * generator.normal(size=(prompts, 1)) + generator.normal(size=(prompts, answers))
    policy_PY = reference_PY * np.exp(reward_PY + 0.7 * generator.normal(size=reward_PY.shape))
    policy_PY /= policy_PY.sum(1, keepdims=True)
    ratio_PY = np.log(policy_PY / reference_PY)
    truth = _true_share(reference_PY, reward_PY, policy_PY, ratio_PY)
    covered = []
    for _ in range(experiments):
        chosen = generator.integers(0, prompts, 32)
        reference, policy = (
            _drawn(own[chosen], count, generator) for own, count in ((reference_PY, 48), (policy_PY, 4))
        )
        pick = np.take_along_axis
        share = point(
            pick(reward_PY[chosen], reference, 1), pick(reward_PY[chosen], policy, 1), pick(ratio_PY[chosen], policy, 1)
        ).share
        assert share is not None and share.interval is not None
        covered.append(share.interval[0] <= truth <= share.interval[1])
    assert np.mean(covered) >= 0.87  # 95% within the error of so many experiments


def _drawn(probabilities_PY: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    sums_PY = probabilities_PY.cumsum(1)
    drawn: np.ndarray = (generator.random((len(sums_PY), count))[:, :, None] > sums_PY[:, None, :-1]).sum(2)
    return drawn


def _true_share(reference_PY: np.ndarray, reward_PY: np.ndarray, policy_PY: np.ndarray, ratio_PY: np.ndarray) -> float:
    price = float((policy_PY * ratio_PY).sum(1).mean())
    low, high = 0.0, 100.0
    for _ in range(80):
        lam = (low + high) / 2
        best_PY = reference_PY * np.exp(lam * (reward_PY - reward_PY.max(1, keepdims=True)))
        best_PY /= best_PY.sum(1, keepdims=True)
        own = (best_PY * np.log(np.maximum(best_PY, 1e-300) / reference_PY)).sum(1).mean()
        low, high = (lam, high) if own < price else (low, lam)
    base, best, got = ((own * reward_PY).sum(1).mean() for own in (reference_PY, best_PY, policy_PY))
    assert not math.isnan(best)
    return float((got - base) / (best - base))
