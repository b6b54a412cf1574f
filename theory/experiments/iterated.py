"""Rounds of pairs from the policy itself, against a reference that stays or moves (Proposition 17 (iterated))."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from experiments import drawing, weights
from experiments.learning import Policy, dpo, fit, log_linear, population, tabular
from experiments.world import (
    World,
    bradley_terry,
    expected_reward,
    independent_pairs,
    kl,
    leaning,
    objective,
    random_world,
    regret,
    tilt,
)

ANSWERS, SEED, BETA, ROUNDS = 20, 2, 2.0, 10


@dataclass(frozen=True, slots=True)
class Results:
    """moved_*: after each round with the reference reset to the last policy. line_*: the frontier.

    *_regret: after each round with the first reference kept, against the best policy of the class; the
    first round's pairs are off-policy, so its regret is what pairs that stay the same would keep.
    """

    beta: float
    moved_kl: list[float]
    moved_reward: list[float]
    line_kl: list[float]
    line_reward: list[float]
    covered_online_regret: list[float]
    shared_online_regret: list[float]
    shared_kappa: float


def measure() -> Results:
    world = random_world(ANSWERS, SEED)
    moved = [world.log_ref_Y]
    for _ in range(ROUNDS):
        moved.append(_round(world, tabular(moved[-1]), ANSWERS, moved[-1], moved[-1], BETA))
    line = [tilt(world, float(beta)) for beta in torch.logspace(1.3, -0.8, 60, dtype=torch.float64)]
    kappa = weights.SHIFTS[-1]
    shared_world, features_YD = weights.misspecified_world()
    shared = log_linear(shared_world.log_ref_Y, features_YD)
    ceiling = objective(shared_world, weights.best_in_class(shared_world, shared), weights.BETA)
    online = [leaning(shared_world, kappa)]
    for _ in range(ROUNDS):
        online.append(
            _round(shared_world, shared, weights.DIMENSIONS, shared_world.log_ref_Y, online[-1], weights.BETA)
        )
    shared_regret = [ceiling - objective(shared_world, log_pi_Y, weights.BETA) for log_pi_Y in online[1:]]
    return Results(
        beta=BETA,
        moved_kl=[kl(log_pi_Y, world.log_ref_Y) for log_pi_Y in moved],
        moved_reward=[expected_reward(world, log_pi_Y) for log_pi_Y in moved],
        line_kl=[kl(log_pi_Y, world.log_ref_Y) for log_pi_Y in line],
        line_reward=[expected_reward(world, log_pi_Y) for log_pi_Y in line],
        covered_online_regret=_from_half(world),
        shared_online_regret=shared_regret,
        shared_kappa=kappa,
    )


def _from_half(world: World) -> list[float]:
    """Regret of a table's rounds whose first pairs are all from the worse half of the answers."""
    worse = world.reward_Y < world.reward_Y.median()
    maker = F.log_softmax(torch.where(worse, world.log_ref_Y, -torch.inf), dim=0)
    regrets = []
    for _ in range(ROUNDS):
        maker = _round(world, tabular(world.log_ref_Y), ANSWERS, world.log_ref_Y, maker, weights.BETA)
        regrets.append(regret(world, maker, weights.BETA))
    return regrets


def _round(
    world: World, policy: Policy, parameters: int, log_ref_Y: Tensor, log_maker_Y: Tensor, beta: float
) -> Tensor:
    """DPO against log_ref_Y on the whole population of pairs that log_maker_Y makes."""
    preferences = population(independent_pairs(log_maker_Y), bradley_terry(world.reward_Y))
    return fit(policy, parameters, log_ref_Y, preferences, dpo(beta))


def draw(results: Results) -> Figure:
    figure, (moved, rounds) = drawing.panels(2, height=2.5)
    moved.plot(results.line_kl, results.line_reward, color="black")
    moved.plot(results.moved_kl, results.moved_reward, marker="o", color=drawing.BLUE, linestyle="none")
    for k, (x, y) in enumerate(zip(results.moved_kl, results.moved_reward, strict=True)):
        moved.annotate(f"${k}$", (x, y), textcoords="offset points", xytext=(6, -7), fontsize=8)
    moved.set_ylim(bottom=-0.5)
    moved.set_xlabel(drawing.KL_FROM_REFERENCE)
    moved.set_ylabel(drawing.EXPECTED_REWARD)
    numbers = range(1, len(results.shared_online_regret) + 1)
    for regrets, label, color, marker in (
        ([results.shared_online_regret[0]] * len(numbers), r"$\mu$, $\theta\in\mathbb{R}^3$", drawing.RED, "v"),
        (results.shared_online_regret, r"$\pi_{k-1}$, $\theta\in\mathbb{R}^3$", drawing.GREEN, "o"),
        (results.covered_online_regret, r"$\pi_{k-1}$, $\theta\in\mathbb{R}^{20}$", drawing.BLUE, "s"),
    ):
        rounds.plot(numbers, regrets, color=color, marker=marker, label=label)
    rounds.set_xlabel("$k$")
    rounds.set_ylabel(r"$\max_\Pi J-J(\pi_k)$")
    rounds.set_ylim(bottom=-0.01)
    rounds.legend()
    return figure
