"""Every statement of theory.pdf, in worlds where both of its sides can be computed.

Each test's docstring names its statement; `test_document.py` holds the list complete and the numbers right.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from experiments import convergence, coverage, deterministic, diagnostics, displacement, length, weights
from experiments.learning import (
    Objective,
    Preferences,
    descend,
    dpo,
    fit,
    ipo,
    log_linear,
    mean_loss,
    population,
    sample,
    tabular,
)
from experiments.world import (
    World,
    best_of_n,
    bradley_terry,
    expected_reward,
    independent_pairs,
    kl,
    log_partition,
    objective,
    random_world,
    regret,
    second_moment,
    tilt,
)
from tiltlm.model.dither import move

seeds = st.integers(0, 100_000)
betas = st.floats(0.2, 4.0)
worlds = st.builds(random_world, answers=st.integers(2, 8), seed=seeds, spread=st.floats(0.1, 1.5))
exact = settings(max_examples=30, deadline=None)
fitted = settings(max_examples=10, deadline=None)


def random_policy(answers: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.log_softmax(1.5 * torch.randn(answers, generator=generator, dtype=torch.float64), dim=0)


def random_features(answers: int, dimensions: int, seed: int) -> Tensor:
    return torch.randn(answers, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform_pairs(answers: int) -> Tensor:
    return independent_pairs(torch.zeros(answers, dtype=torch.float64))


@exact
@given(worlds, betas, seeds)
def test_no_policy_passes_the_tilt_and_regret_is_a_divergence(world: World, beta: float, seed: int) -> None:
    """Theorem 1 (tilt): J(pi) = beta log Z - beta KL(pi || pi*), eq. 3 (gap)."""
    pi = random_policy(len(world.reward_Y), seed)
    best = tilt(world, beta)
    assert objective(world, pi, beta) == pytest.approx(
        beta * log_partition(world, beta) - beta * kl(pi, best), abs=1e-12
    )
    assert objective(world, best, beta) == pytest.approx(beta * log_partition(world, beta), abs=1e-12)
    assert regret(world, pi, beta) == pytest.approx(beta * kl(pi, best), abs=1e-12)


def test_without_a_partition_function_the_objective_has_no_bound() -> None:
    """Theorem 1 (tilt): if Z is infinite, so is the supremum of J."""
    heights = []
    for answers in (10, 100, 1000):
        k = torch.arange(1, answers + 1, dtype=torch.float64)
        whole = World(math.log(0.5) * k, k)  # pi_ref(k) = 2^-k and r(k) = k: Z diverges at beta = 1
        best_there = F.log_softmax(whole.log_ref_Y + whole.reward_Y, dim=0)
        heights.append(objective(whole, best_there, 1.0))
        assert heights[-1] == pytest.approx(log_partition(whole, 1.0), rel=1e-12)
    assert heights[1] - heights[0] > 10
    assert heights[2] - heights[1] > 100


@exact
@given(worlds, betas, seeds)
def test_beta_is_the_slope_of_reward_against_kl(world: World, beta: float, seed: int) -> None:
    """Corollary 2 (frontier): eq. 4 (exchange) by central differences, and no policy above the curve."""
    lam, step = 1 / beta, 1e-4
    p, q = tilt(world, 1 / (lam - step)), tilt(world, 1 / (lam + step))
    reward_slope = (expected_reward(world, q) - expected_reward(world, p)) / (2 * step)
    kl_slope = (kl(q, world.log_ref_Y) - kl(p, world.log_ref_Y)) / (2 * step)
    best = tilt(world, beta)
    variance = (best.exp() * world.reward_Y.square()).sum().item() - expected_reward(world, best) ** 2
    assert reward_slope == pytest.approx(variance, rel=1e-4, abs=1e-6)
    assert kl_slope == pytest.approx(lam * variance, rel=1e-4, abs=1e-6)
    assert reward_slope == pytest.approx(beta * kl_slope, rel=1e-4, abs=1e-6)
    # Under the tangent of slope beta at the tilt, which is more than the statement asks.
    pi = random_policy(len(world.reward_Y), seed)
    further = kl(pi, world.log_ref_Y) - kl(best, world.log_ref_Y)
    assert expected_reward(world, pi) <= expected_reward(world, best) + beta * further + 1e-12
    nearer = torch.logaddexp(pi + math.log(0.01), world.log_ref_Y + math.log(0.99))
    if kl(nearer, world.log_ref_Y) <= kl(best, world.log_ref_Y):
        assert expected_reward(world, nearer) <= expected_reward(world, best) + 1e-12


def ranking_probability(reward_Y: Tensor, ranking: tuple[int, ...]) -> float:
    ordered = reward_Y[list(ranking)]
    return math.exp(sum((ordered[k] - torch.logsumexp(ordered[k:], dim=0)).item() for k in range(len(ranking))))


@exact
@given(worlds, betas)
def test_preferences_do_not_see_the_partition_function(world: World, beta: float) -> None:
    """Proposition 3 (cancellation): eq. 6 (bradley-terry), eq. 7 (plackett-luce) with r and beta log(pi*/pi_ref)."""
    implicit_Y = beta * (tilt(world, beta) - world.log_ref_Y)
    torch.testing.assert_close(bradley_terry(implicit_Y), bradley_terry(world.reward_Y), rtol=0, atol=1e-12)
    first = tuple(range(min(4, len(implicit_Y))))
    rankings = list(itertools.permutations(first))
    for ranking in rankings:
        assert ranking_probability(implicit_Y, ranking) == pytest.approx(
            ranking_probability(world.reward_Y, ranking), abs=1e-12
        )
    assert sum(ranking_probability(implicit_Y, ranking) for ranking in rankings) == pytest.approx(1)
    assert ranking_probability(implicit_Y, (0, 1)) == pytest.approx(bradley_terry(implicit_Y)[0, 1].item())


@exact
@given(worlds, betas, seeds)
def test_policies_and_classes_of_rewards_are_one_to_one(world: World, beta: float, seed: int) -> None:
    """Theorem 4 (representative): the tilt of a policy's implicit reward is the policy, and the constant is lost."""
    pi = random_policy(len(world.reward_Y), seed)
    implicit = World(world.log_ref_Y, beta * (pi - world.log_ref_Y))
    torch.testing.assert_close(tilt(implicit, beta), pi, rtol=0, atol=1e-12)
    assert log_partition(implicit, beta) == pytest.approx(0, abs=1e-12)
    lost_Y = beta * (tilt(world, beta) - world.log_ref_Y) - world.reward_Y
    torch.testing.assert_close(lost_Y, lost_Y[0].expand_as(lost_Y), rtol=0, atol=1e-12)
    moved = World(world.log_ref_Y, world.reward_Y + 3.7)
    torch.testing.assert_close(tilt(moved, beta), tilt(world, beta), rtol=0, atol=1e-12)


@exact
@given(worlds, betas, seeds)
def test_the_gradient_weighs_by_the_probability_of_the_other_label(world: World, beta: float, seed: int) -> None:
    """Proposition 5 (gradient): eq. 12 (gradient), eq. 13 (residual) against autograd of the trainer's loss."""
    answers = len(world.reward_Y)
    features_YD = random_features(answers, 3, seed)
    policy = log_linear(world.log_ref_Y, features_YD)
    preferences = population(uniform_pairs(answers), bradley_terry(world.reward_Y))
    theta = random_features(1, 3, seed + 1)[0].requires_grad_()
    (found,) = torch.autograd.grad(mean_loss(policy(theta), world.log_ref_Y, preferences, dpo(beta)), theta)

    log_pi_Y = policy(theta).detach()
    score_YD = features_YD - log_pi_Y.exp() @ features_YD
    implicit_Y = beta * (log_pi_Y - world.log_ref_Y)
    c, r = preferences.chosen_P, preferences.rejected_P
    weight_P = torch.sigmoid(implicit_Y[r] - implicit_Y[c])
    by_pair = -beta * (preferences.weight_P * weight_P) @ (score_YD[c] - score_YD[r])
    torch.testing.assert_close(found, by_pair, rtol=0, atol=1e-12)

    residual_YY = bradley_terry(world.reward_Y) - bradley_terry(implicit_Y)
    difference_YYD = score_YD[:, None] - score_YD[None, :]
    by_residual = -beta * torch.einsum("ij,ij,ijd->d", uniform_pairs(answers), residual_YY, difference_YYD)
    torch.testing.assert_close(found, by_residual, rtol=0, atol=1e-12)


@exact
@given(worlds, betas, seeds)
def test_the_loss_for_rankings_is_that_for_pairs_where_there_are_two(world: World, beta: float, seed: int) -> None:
    """Proposition 3 (cancellation): eq. 11 (dpo-ranking) at K = 2 is the trainer's loss, eq. 10 (dpo)."""
    pi = random_policy(len(world.reward_Y), seed)
    pair = Preferences(torch.tensor([1]), torch.tensor([0]), torch.ones(1, dtype=torch.float64))
    implicit_Y = beta * (pi - world.log_ref_Y)
    loss = mean_loss(pi, world.log_ref_Y, pair, dpo(beta)).item()
    assert loss == pytest.approx(-math.log(ranking_probability(implicit_Y, (1, 0))), abs=1e-12)


@exact
@given(worlds, st.integers(1, 300))
def test_best_of_n_pays_at_most_log_n(world: World, n: int) -> None:
    """Proposition 6 (best-of-n): eq. 14 (best-of-n)."""
    log_best_Y = best_of_n(world, n)
    assert log_best_Y.exp().sum().item() == pytest.approx(1)
    assert kl(log_best_Y, world.log_ref_Y) <= math.log(n) - (n - 1) / n + 1e-12


def test_best_of_n_is_what_drawing_and_choosing_gives() -> None:
    """Proposition 6 (best-of-n): the distribution itself, by listing every triple of draws."""
    world = random_world(4, seed=9)
    listed = torch.zeros(4, dtype=torch.float64)
    for draws in itertools.product(range(4), repeat=3):
        best = max(draws, key=lambda y: world.reward_Y[y].item())
        listed[best] += world.log_ref_Y[list(draws)].sum().exp()
    torch.testing.assert_close(best_of_n(world, 3).exp(), listed, rtol=0, atol=1e-12)


def test_best_of_n_with_ties_shared_among_the_tied_draws() -> None:
    """Proposition 6 (best-of-n): the bound where rewards are equal, by listing."""
    log_ref_Y, reward = random_policy(4, seed=5), (0, 1, 1, 2)
    for n in (2, 3, 4):
        listed = torch.zeros(4, dtype=torch.float64)
        for draws in itertools.product(range(4), repeat=n):
            tied = [y for y in draws if reward[y] == max(reward[d] for d in draws)]
            for y in tied:
                listed[y] += log_ref_Y[list(draws)].sum().exp() / len(tied)
        assert listed.sum().item() == pytest.approx(1)
        assert kl(listed.log(), log_ref_Y) <= math.log(n) - (n - 1) / n


@fitted
@given(st.integers(0, 1000), betas, seeds)
def test_dpo_finds_the_optimum_on_connected_components_only(world_seed: int, beta: float, seed: int) -> None:
    """Theorem 7 (connectivity): a path and a single pair among seven answers, with random weights on their edges."""
    world = random_world(7, world_seed, spread=0.7)
    generator = torch.Generator().manual_seed(seed)
    mu_YY = torch.zeros(7, 7, dtype=torch.float64)
    for i, j in ((0, 1), (1, 2), (2, 3), (4, 5)):
        mu_YY[i, j] = 0.1 + torch.rand(1, generator=generator, dtype=torch.float64).item()
    preferences = population(mu_YY / mu_YY.sum(), bradley_terry(world.reward_Y))
    pi = fit(tabular(world.log_ref_Y), 7, world.log_ref_Y, preferences, dpo(beta))
    best = tilt(world, beta)
    for component in ([0, 1, 2, 3], [4, 5]):
        torch.testing.assert_close(
            F.log_softmax(pi[component], dim=0), F.log_softmax(best[component], dim=0), rtol=0, atol=1e-7
        )
    # Masses of components are free: any of them gives the same loss.
    moved = F.log_softmax(best + torch.tensor([0.0] * 4 + [1.3] * 2 + [-0.7]), dim=0)
    losses = [mean_loss(log_pi_Y, world.log_ref_Y, preferences, dpo(beta)).item() for log_pi_Y in (pi, best, moved)]
    assert losses[1:] == pytest.approx([losses[0]] * 2, abs=1e-12)

    mu_YY[3, 4] = mu_YY[5, 6] = 0.2
    whole = population(mu_YY / mu_YY.sum(), bradley_terry(world.reward_Y))
    joined = fit(tabular(world.log_ref_Y), 7, world.log_ref_Y, whole, dpo(beta))
    torch.testing.assert_close(joined, best, rtol=0, atol=1e-7)


@exact
@given(worlds, betas, seeds)
def test_the_loss_is_entropy_plus_divergence(world: World, beta: float, seed: int) -> None:
    """Theorem 7 (connectivity): eq. 15 (population) with the trainer's loss on its left side."""
    answers = len(world.reward_Y)
    noise_YY = random_features(answers, answers, seed)
    mu_YY, p_YY = uniform_pairs(answers), torch.sigmoid(noise_YY - noise_YY.T)  # not Bradley-Terry
    pi = random_policy(answers, seed)
    loss = mean_loss(pi, world.log_ref_Y, population(mu_YY, p_YY), dpo(beta)).item()
    predicted_YY = bradley_terry(beta * (pi - world.log_ref_Y))
    entropy = -(mu_YY * (p_YY * p_YY.log() + p_YY.T * p_YY.T.log())).sum().item()
    divergence_YY = p_YY * (p_YY / predicted_YY).log() + p_YY.T * (p_YY.T / predicted_YY.T).log()
    assert loss == pytest.approx(entropy + (mu_YY * divergence_YY).sum().item(), abs=1e-10)


def test_descent_fills_in_equal_mean_rewards() -> None:
    """Proposition 8 (conserved): eq. 17 (conserved)."""
    world = random_world(coverage.ANSWERS, coverage.SEED)
    torch.testing.assert_close(coverage.descended(world), coverage.imputed(world, coverage.BETA), rtol=0, atol=1e-9)


@pytest.mark.parametrize("objective_", [dpo(0.5), ipo(0.5)])
def test_descent_conserves_the_sum_over_a_component(objective_: Objective) -> None:
    """Proposition 8 (conserved): on the way as at its end, whatever the function of the margins."""
    world = random_world(coverage.ANSWERS, seed=12)
    preferences = population(coverage.pairs_within_components(), bradley_terry(world.reward_Y))
    path = descend(
        tabular(world.log_ref_Y),
        coverage.ANSWERS,
        world.log_ref_Y,
        preferences,
        objective_,
        step_size=0.7,
    )
    for log_pi_Y in itertools.islice(path, 1, 20):
        moved_Y = log_pi_Y - world.log_ref_Y
        means = [moved_Y[list(component)].mean() for component in coverage.COMPONENTS]
        torch.testing.assert_close(torch.stack(means), means[-1].expand(len(means)), rtol=0, atol=1e-12)
        assert moved_Y[:4].std() > 1e-3


@pytest.mark.parametrize("beta", [0.1, 1.0, 5.0])
def test_certain_labels_leave_no_trace_of_beta(beta: float) -> None:
    """Proposition 9 (deterministic), part 1: the loss falls to zero along a utility, and beaten answers vanish."""
    world = random_world(5, seed=8)
    certain = (world.reward_Y[:, None] > world.reward_Y[None, :]).double()
    labels = population(uniform_pairs(5), certain)
    rank_Y = world.reward_Y.argsort().argsort().double()
    for scale, at_most in ((10.0, 1e-3), (20.0, 1e-7), (40.0, 1e-15)):
        pi = F.log_softmax(world.log_ref_Y + scale * rank_Y / beta, dim=0)
        assert 0 < mean_loss(pi, world.log_ref_Y, labels, dpo(beta)).item() < at_most
        beaten = 1 - pi[world.reward_Y.argmax()].exp().item()
        assert beaten < 5 * math.exp(-scale / beta) * (world.log_ref_Y.max() - world.log_ref_Y.min()).exp().item()


@exact
@given(st.integers(3, 8), betas, seeds)
def test_a_small_loss_leaves_little_to_beaten_answers(answers: int, beta: float, seed: int) -> None:
    """Proposition 9 (deterministic), part 1: the step of its proof, on a path, for any policy."""
    ref, pi = random_policy(answers, seed), random_policy(answers, seed + 1)
    chosen_P, rejected_P = torch.arange(1, answers), torch.arange(answers - 1)
    path = Preferences(chosen_P, rejected_P, torch.full((answers - 1,), 1 / (answers - 1), dtype=torch.float64))
    loss = mean_loss(pi, ref, path, dpo(beta)).item()
    for won, lost in zip(chosen_P.tolist(), rejected_P.tolist(), strict=True):
        margin = (pi[won] - ref[won] - pi[lost] + ref[lost]).item()
        assert pi[lost].exp().item() <= (ref[lost] - ref[won]).exp().item() * math.exp(-margin) + 1e-12
        assert margin >= -math.log(math.expm1((answers - 1) * loss)) / beta - 1e-9


@pytest.mark.parametrize("objective_", [dpo(0.5, 0.1), ipo(0.5)])
def test_smoothing_and_ipo_have_minimisers_on_any_graph(objective_: Objective) -> None:
    """Proposition 9 (deterministic), parts 2 and 3: a triangle, a pair, and an answer that is never shown."""
    ref = random_policy(6, seed=4)
    certain = torch.zeros(6, 6, dtype=torch.float64)
    mu_YY = torch.zeros(6, 6, dtype=torch.float64)
    for won, lost in ((0, 1), (1, 2), (0, 2), (3, 4)):
        certain[won, lost] = mu_YY[won, lost] = 1.0
    labels = population(mu_YY / 4, certain)
    theta = (fit(tabular(ref), 6, ref, labels, objective_) - ref).requires_grad_()
    (gradient,) = torch.autograd.grad(mean_loss(tabular(ref)(theta), ref, labels, objective_), theta)
    assert theta.abs().max() < 20
    assert gradient.abs().max() < 1e-9


@exact
@given(betas, st.floats(0.01, 0.45))
def test_smoothing_gives_a_pair_a_finite_margin(beta: float, smoothing: float) -> None:
    """Proposition 9 (deterministic), part 2: h = log((1 - e) / e) / beta."""
    log_ref_Y = torch.tensor([0.3, 0.7], dtype=torch.float64).log()
    pair = Preferences(torch.tensor([0]), torch.tensor([1]), torch.ones(1, dtype=torch.float64))
    ratio = fit(tabular(log_ref_Y), 2, log_ref_Y, pair, dpo(beta, smoothing)) - log_ref_Y
    assert (ratio[0] - ratio[1]).item() == pytest.approx(math.log((1 - smoothing) / smoothing) / beta, rel=1e-5)


@fitted
@given(worlds, st.floats(0.05, 4.0))
def test_ipo_stays_at_a_finite_distance(world: World, beta: float) -> None:
    """Proposition 9 (deterministic), part 3: wins less losses over 2 beta n."""
    answers = len(world.reward_Y)
    certain = (world.reward_Y[:, None] > world.reward_Y[None, :]).double()
    pi = fit(tabular(world.log_ref_Y), answers, world.log_ref_Y, population(uniform_pairs(answers), certain), ipo(beta))
    torch.testing.assert_close(pi, deterministic.ipo_minimiser(world.log_ref_Y, certain, beta), rtol=0, atol=1e-8)


@exact
@given(st.integers(3, 6), betas, seeds)
def test_the_chosen_answer_moves_as_the_gradients_say(answers: int, beta: float, seed: int) -> None:
    """Proposition 10 (displacement): eq. 20 (displacement) against a small step, with features and with a table."""
    log_ref_Y, log_now_Y = random_policy(answers, seed), random_policy(answers, seed + 1)
    margin = (log_now_Y - log_ref_Y)[0] - (log_now_Y - log_ref_Y)[1]
    pull = beta * torch.sigmoid(-beta * margin)
    rate = 1e-6
    pair = displacement.one_pair()
    for features_YD in (random_features(answers, 2, seed), torch.eye(answers, dtype=torch.float64)):
        policy = log_linear(log_now_Y, features_YD)  # training has come this far from log_ref_Y
        path = descend(policy, features_YD.shape[1], log_ref_Y, pair, dpo(beta), rate)
        before, after = itertools.islice(path, 2)
        score_YD = features_YD - before.exp() @ features_YD
        predicted_Y = pull * score_YD @ (score_YD[0] - score_YD[1])
        torch.testing.assert_close((after - before) / rate, predicted_Y, rtol=1e-3, atol=1e-4)
        falls = score_YD[0] @ score_YD[1] > score_YD[0] @ score_YD[0]
        assert (predicted_Y[0] < 0) == falls
    table = 1 - before.exp()[0] + before.exp()[1]
    torch.testing.assert_close(predicted_Y[0], pull * table)
    assert predicted_Y[0] > 0 > predicted_Y[1]


def test_the_chosen_answer_falls_when_the_mean_feature_has_passed_it() -> None:
    """Proposition 10 (displacement): the turning point of the document's example, to a step."""
    results = displacement.measure()
    assert abs(results.turning_step - results.predicted_step) <= 1
    assert results.shared.chosen[-1] < -4
    assert results.tabular.chosen[-1] > 0
    assert all(later < earlier for earlier, later in itertools.pairwise(results.shared.loss))


@exact
@given(worlds, betas)
def test_at_the_optimum_answers_below_the_soft_value_have_lost(world: World, beta: float) -> None:
    """Proposition 10 (displacement): eq. 21 (optimum-change)."""
    value = beta * log_partition(world, beta)
    change_Y = tilt(world, beta) - world.log_ref_Y
    torch.testing.assert_close(change_Y, (world.reward_Y - value) / beta, rtol=0, atol=1e-12)
    assert value >= expected_reward(world, world.log_ref_Y) - 1e-12


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.9])
def test_a_bias_for_length_is_multiplied(beta: float, share: float) -> None:
    """Proposition 11 (length): eq. 22 (length) from pairs of at most eight tokens."""
    alpha = share * length.runaway_bias(length.CONTINUES, beta)
    learned = length.learned_continuation(alpha, beta)
    assert learned == pytest.approx(length.CONTINUES * math.exp(alpha / beta), abs=1e-7)


def lengths_world(q: float, alpha: float, longest: int) -> World:
    k = torch.arange(1, longest + 1, dtype=torch.float64)
    return World(math.log(1 - q) + (k - 1) * math.log(q), alpha * k)


@exact
@given(st.floats(0.3, 0.9), betas, st.floats(0.0, 0.9))
def test_the_optimum_for_a_bias_is_geometric_too(q: float, beta: float, share: float) -> None:
    """Proposition 11 (length): pi* itself, its ratio and its mean length, eq. 22 (length)."""
    alpha = share * length.runaway_bias(q, beta)
    best = tilt(lengths_world(q, alpha, longest=3000), beta)
    ratio = q * math.exp(alpha / beta)
    torch.testing.assert_close(best[1:] - best[:-1], torch.full((2999,), math.log(ratio), dtype=torch.float64))
    mean_length = (best.exp() * torch.arange(1, 3001)).sum().item()
    assert mean_length == pytest.approx(1 / (1 - ratio), rel=1e-6)


@pytest.mark.parametrize("share", [1.0, 1.2])
def test_from_the_threshold_on_nothing_stops_the_answer(share: float) -> None:
    """Proposition 11 (length): the probability to go on tends to one, and partial sums of Z have no bound."""
    alpha = share * length.runaway_bias(length.CONTINUES, 0.1)
    assert length.learned_continuation(alpha, 0.1) > 1 - 1e-4
    sums = [math.exp(log_partition(lengths_world(length.CONTINUES, alpha, n), 0.1)) for n in (100, 200, 400)]
    assert sums[1] >= 1.99 * sums[0]
    assert sums[2] >= 1.99 * sums[1]


@pytest.mark.parametrize("origin", ["reference", "chain"])
def test_regret_falls_with_labels_as_the_information_says(origin: str) -> None:
    """Proposition 12 (efficiency): eq. 23 (efficiency) within four standard errors of 60 simulated sets of labels."""
    beta, labels, repeats = 0.7, 20_000, 60
    world = random_world(5, seed=2, spread=0.7)
    chain_YY = torch.diag(torch.full((4,), 0.25, dtype=torch.float64), diagonal=1)
    mu_YY = independent_pairs(world.log_ref_Y) if origin == "reference" else chain_YY
    generator = torch.Generator().manual_seed(0)
    regrets = torch.tensor(
        [
            regret(
                world,
                fit(
                    tabular(world.log_ref_Y),
                    5,
                    world.log_ref_Y,
                    sample(mu_YY, bradley_terry(world.reward_Y), labels, generator),
                    dpo(beta),
                ),
                beta,
            )
            for _ in range(repeats)
        ]
    )
    predicted = convergence.predicted_regret(world, mu_YY, beta, labels)
    error = regrets.std().item() / math.sqrt(repeats)
    assert error < 0.2 * predicted
    assert regrets.mean().item() == pytest.approx(predicted, abs=4 * error)


@exact
@given(worlds, betas, seeds)
def test_on_policy_the_gradient_is_that_of_rlhf(world: World, beta: float, seed: int) -> None:
    """Proposition 13 (on-policy): eq. 24 (on-policy) exactly, and DPO's gradient within the stated bound."""
    answers = len(world.reward_Y)
    policy = log_linear(world.log_ref_Y, random_features(answers, 3, seed))
    theta = (0.5 * random_features(1, 3, seed + 1)[0]).requires_grad_()
    log_pi_Y = policy(theta)
    pairs_YY = torch.outer(log_pi_Y.detach().exp(), log_pi_Y.detach().exp())
    reward_YY = world.reward_Y[:, None] - world.reward_Y[None, :]
    ratio_Y = log_pi_Y - world.log_ref_Y
    margin_YY = ratio_Y[:, None] - ratio_Y[None, :]
    square = 0.5 * (pairs_YY * (reward_YY - beta * margin_YY).square()).sum()
    j = (log_pi_Y.exp() * (world.reward_Y - beta * ratio_Y)).sum()
    (gradient_j,) = torch.autograd.grad(j, theta, retain_graph=True)
    (gradient_square,) = torch.autograd.grad(square, theta, retain_graph=True)
    torch.testing.assert_close(gradient_square, -2 * beta * gradient_j, rtol=0, atol=1e-10)

    loss_YY = -torch.sigmoid(reward_YY) * F.logsigmoid(beta * margin_YY)
    loss_YY = loss_YY - torch.sigmoid(-reward_YY) * F.logsigmoid(-beta * margin_YY)
    (gradient_dpo,) = torch.autograd.grad((pairs_YY * loss_YY).sum(), theta, retain_graph=True)
    rows = [[torch.autograd.grad(m, theta, retain_graph=True)[0].norm() for m in row] for row in margin_YY]
    slope_YY = torch.stack([torch.stack(row) for row in rows])
    cubes_YY = reward_YY.abs() ** 3 + (beta * margin_YY).abs() ** 3
    bound = beta / 48 * (pairs_YY * cubes_YY * slope_YY).sum().item()
    assert (gradient_dpo + beta / 2 * gradient_j).norm().item() <= bound + 1e-12


@exact
@given(worlds, betas, seeds, st.floats(0.01, 1.0))
def test_excess_loss_bounds_regret(world: World, beta: float, seed: int, distance: float) -> None:
    """Theorem 14 (transfer): eq. 25 (transfer) for random policies and random distributions over pairs."""
    answers = len(world.reward_Y)
    best = tilt(world, beta)
    pi = F.log_softmax(best + distance / beta * random_policy(answers, seed), dim=0)
    generator = torch.Generator().manual_seed(seed)
    shown_YY = torch.rand(answers, answers, generator=generator, dtype=torch.float64) + 0.05
    shown_YY = (shown_YY + shown_YY.T).fill_diagonal_(0.0)
    shown_YY /= shown_YY.sum()
    preferences = population(shown_YY, bradley_terry(world.reward_Y))
    excess = (
        mean_loss(pi, world.log_ref_Y, preferences, dpo(beta))
        - mean_loss(best, world.log_ref_Y, preferences, dpo(beta))
    ).item()
    implicit_Y = beta * (pi - world.log_ref_Y)
    widest = max((values.max() - values.min()).item() for values in (implicit_Y, world.reward_Y))
    slope = (torch.sigmoid(torch.tensor(widest)) * torch.sigmoid(torch.tensor(-widest))).item()
    off_diagonal = ~torch.eye(answers, dtype=torch.bool)
    ratio_YY = torch.outer(pi.exp(), best.exp())[off_diagonal] / shown_YY[off_diagonal]
    bound = math.sqrt(0.5 * ratio_YY.max().item() * max(excess, 0.0)) / slope
    assert regret(world, pi, beta) <= bound * (1 + 1e-9) + 1e-9


@exact
@given(worlds, seeds)
def test_importance_weights_stand_for_other_pairs(world: World, seed: int) -> None:
    """Proposition 15 (weights): both sides of eq. 26 (importance), the growth with length, and the hole."""
    answers = len(world.reward_Y)
    mu, nu = world.log_ref_Y, random_policy(answers, seed)
    pairs_YY = torch.outer(mu.exp(), mu.exp())
    weight_YY = torch.outer((nu - mu).exp(), (nu - mu).exp())
    of_pair_YY = random_features(answers, answers, seed)
    torch.testing.assert_close(
        (pairs_YY * weight_YY * of_pair_YY).sum(), nu.exp() @ of_pair_YY @ nu.exp(), rtol=1e-10, atol=1e-12
    )
    chi = second_moment(nu, mu)
    assert (pairs_YY * weight_YY.square()).sum().item() == pytest.approx(chi**2)
    nu_whole, mu_whole = nu, mu
    for tokens in (2, 3):
        nu_whole = (nu_whole[:, None] + nu[None, :]).flatten()
        mu_whole = (mu_whole[:, None] + mu[None, :]).flatten()
        assert second_moment(nu_whole, mu_whole) == pytest.approx(chi**tokens)

    kept = torch.arange(answers) > 0
    holed = F.log_softmax(torch.where(kept, mu, -torch.inf), dim=0)
    shown_YY = torch.outer(holed.exp(), holed.exp())
    weight_YY = torch.outer((nu - holed).exp(), (nu - holed).exp())
    seen_YY = shown_YY > 0
    assert (shown_YY[seen_YY] * weight_YY[seen_YY]).sum().item() == pytest.approx((1 - nu[0].exp().item()) ** 2)


@fitted
@given(st.integers(0, 1000), betas, seeds)
def test_weights_change_nothing_where_all_policies_are_allowed(world_seed: int, beta: float, seed: int) -> None:
    """Proposition 16 (wpo), part 1: and the same for importance weights."""
    world = random_world(6, world_seed, spread=0.7)
    mu = random_policy(6, seed)
    preferences = population(independent_pairs(mu), bradley_terry(world.reward_Y))
    for weighting in (weights.wpo, weights.importance):
        factor_P = weighting(random_policy(6, seed + 1), mu, preferences)
        assert factor_P.std() > 0
        pi = fit(tabular(world.log_ref_Y), 6, world.log_ref_Y, preferences, dpo(beta), factor_P=factor_P)
        torch.testing.assert_close(pi, tilt(world, beta), rtol=0, atol=1e-6)


def test_training_with_moving_wpo_weights_ends_at_the_optimum() -> None:
    """Proposition 16 (wpo), part 1: a stationary point of training whose weights follow the policy."""
    world = random_world(6, seed=21, spread=0.7)
    mu = F.log_softmax(0.4 * random_policy(6, seed=22), dim=0)
    preferences = population(independent_pairs(mu), bradley_terry(world.reward_Y))
    path = descend(
        tabular(world.log_ref_Y),
        6,
        world.log_ref_Y,
        preferences,
        dpo(1.0),
        step_size=5.0,
        reweighting=lambda log_pi_Y, pairs: weights.wpo(log_pi_Y, mu, pairs),
    )
    torch.testing.assert_close(next(itertools.islice(path, 4000, None)), tilt(world, 1.0), rtol=0, atol=1e-5)


@exact
@given(st.integers(2, 8), seeds)
def test_wpo_makes_pairs_of_the_product(answers: int, seed: int) -> None:
    """Proposition 16 (wpo), part 2: pairs of mu * pi; on-policy exactly where mu is uniform."""
    pi, mu = random_policy(answers, seed), random_policy(answers, seed + 1)
    uniform = torch.full((answers,), 1 / answers, dtype=torch.float64).log()
    for source, expected in ((mu, F.log_softmax(mu + pi, dim=0)), (uniform, pi)):
        preferences = population(independent_pairs(source), torch.full((answers, answers), 0.5, dtype=torch.float64))
        weighted_P = preferences.weight_P * weights.wpo(pi, source, preferences)
        wanted_P = independent_pairs(expected)[preferences.chosen_P, preferences.rejected_P]
        torch.testing.assert_close(weighted_P / weighted_P.sum(), wanted_P, rtol=0, atol=1e-12)
    if answers > 2:  # two answers make one pair only
        assert not torch.allclose(independent_pairs(F.log_softmax(mu + pi, dim=0)), independent_pairs(pi), atol=1e-6)


@exact
@given(st.integers(2, 50), st.integers(1, 40), seeds)
def test_wpo_weights_are_bounded_at_any_length(vocabulary: int, tokens: int, seed: int) -> None:
    """Proposition 16 (wpo), part 3: the likeliest answer of a random model."""
    generator = torch.Generator().manual_seed(seed)
    log_p_TV = F.log_softmax(4 * torch.randn(tokens, vocabulary, generator=generator, dtype=torch.float64), dim=1)
    aligned_T = log_p_TV.max(dim=1).values - torch.logsumexp(2 * log_p_TV, dim=1)
    assert aligned_T.mean().exp().item() <= math.sqrt(vocabulary) + 1e-9


@fitted
@given(st.integers(0, 1000), st.floats(1.0, 4.0))
def test_resetting_the_reference_divides_beta(world_seed: int, beta: float) -> None:
    """Proposition 17 (iterated): eq. 28 (iterated), and the same rounds with the first reference kept."""
    world = random_world(5, world_seed, spread=0.7)
    preferred = bradley_terry(world.reward_Y)
    moving = kept = world.log_ref_Y
    for k in range(1, 4):
        pairs = population(independent_pairs(moving), preferred)
        moving = fit(tabular(moving), 5, moving, pairs, dpo(beta))
        torch.testing.assert_close(moving, tilt(world, beta / k), rtol=0, atol=1e-6)
        pairs = population(independent_pairs(kept), preferred)
        kept = fit(tabular(world.log_ref_Y), 5, world.log_ref_Y, pairs, dpo(beta))
        torch.testing.assert_close(kept, tilt(world, beta), rtol=0, atol=1e-6)


@exact
@given(st.integers(2, 8), seeds)
def test_surprise_is_divergence_and_entropy(answers: int, seed: int) -> None:
    """Proposition 18 (surprise): eq. 29 (surprise)."""
    mu, ref = random_policy(answers, seed), random_policy(answers, seed + 1)
    entropies = [-(p.exp() * p).sum().item() for p in (mu, ref)]
    assert diagnostics.surprise_gap(mu, ref) == pytest.approx(kl(mu, ref) + entropies[0] - entropies[1], abs=1e-12)
    assert diagnostics.surprise_gap(ref, ref) == pytest.approx(0, abs=1e-12)


def test_no_gap_in_surprise_does_not_mean_the_same_author() -> None:
    """Proposition 18 (surprise): the document's counterexample."""
    ref = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log()
    mu = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log()
    assert diagnostics.surprise_gap(mu, ref) == pytest.approx(0, abs=1e-12)
    assert kl(mu, ref) > 0.3


@exact
@given(worlds, betas)
def test_the_effective_share_is_below_the_exponential_of_kl(world: World, beta: float) -> None:
    """Proposition 19 (effective): 1 / E w^2 is at most exp(-KL), eq. 30 (effective)."""
    best = tilt(world, beta)
    assert (world.log_ref_Y.exp() * (best - world.log_ref_Y).exp()).sum().item() == pytest.approx(1)
    assert 1 / second_moment(best, world.log_ref_Y) <= math.exp(-kl(best, world.log_ref_Y)) + 1e-12


def test_the_effective_share_is_estimated_and_has_a_floor() -> None:
    """Proposition 19 (effective): the estimate's limit, and 1/N where it cannot follow."""
    world = random_world(6, seed=3)
    target = tilt(world, 2.0)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(world.log_ref_Y.exp(), 200_000, replacement=True, generator=generator)
    share = diagnostics.effective_share((target - world.log_ref_Y)[drawn])
    assert share == pytest.approx(1 / second_moment(target, world.log_ref_Y), rel=0.01)
    one_large = torch.tensor([0.0] * 99 + [100.0], dtype=torch.float64)
    assert diagnostics.effective_share(one_large) == pytest.approx(0.01)
    assert diagnostics.effective_share(torch.zeros(100, dtype=torch.float64)) == pytest.approx(1)


magnitudes = st.floats(2.0**-100, 2.0**100, width=32)


@exact
@given(magnitudes, st.sampled_from([-1.0, 1.0]), st.integers(-(2**15), 2**15))
def test_a_dithered_weight_is_rounded_right_on_average(magnitude: float, sign: float, steps: int) -> None:
    """Proposition 20 (dither): eq. 31 (dither), over every number that the dither can be, for a weight and for what
    becomes of it after a change of less than half a step."""
    for weight in (magnitude, moved(magnitude, steps)):
        numbers = torch.arange(1 - 2**15, 2**15)
        place = torch.tensor(weight).view(torch.int32)
        rounded = (place + numbers.int()).view(torch.float32).bfloat16().double() * sign
        step = 2.0 ** (math.floor(math.log2(weight)) - 7)
        # One number in 65,535 meets a tie, which is broken to even.
        assert rounded.mean().item() == pytest.approx(sign * weight, abs=step * 2**-15)


def moved(weight: float, steps: int) -> float:
    """The float32 value so many values further on."""
    return float((torch.tensor(weight).view(torch.int32) + steps).view(torch.float32))


@exact
@given(magnitudes, st.integers(-(2**15) + 1, 2**15 - 1))
def test_without_dither_a_coarse_weight_hides_a_small_step(magnitude: float, steps: int) -> None:
    """Proposition 20 (dither): what it is for."""
    coarse = torch.tensor(magnitude).bfloat16().float().item()
    assert torch.tensor(moved(coarse, steps)).bfloat16().item() == coarse


@exact
@given(magnitudes, st.integers(-(2**14), 2**14), st.text(max_size=20))
def test_the_trainer_adds_these_numbers_and_takes_them_off_again(magnitude: float, steps: int, name: str) -> None:
    """Proposition 20 (dither): the trainer's own dither, through a change of the weights between."""
    weights = torch.full((1000,), magnitude)
    move(weights, name, 1)
    numbers = weights.view(torch.int32) - torch.tensor(magnitude).view(torch.int32)
    assert -(2**15) <= numbers.min() < -(2**14) < 2**14 < numbers.max() < 2**15
    weights.view(torch.int32).add_(steps)
    move(weights, name, -1)
    assert weights.tolist() == [moved(magnitude, steps)] * 1000
