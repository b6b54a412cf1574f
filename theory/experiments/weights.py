"""A policy that cannot represent the optimum depends on who made the pairs; what weights mend, and at what price.

Proposition 13 (on-policy), Proposition 15 (weights) and Proposition 16 (wpo). Weights are taken at the best policy of
the class, which no trainer knows: the experiment shows what weights can do at most.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from experiments import drawing
from experiments.learning import Policy, Preferences, dpo, fit, log_linear, minimise, population, sample
from experiments.world import World, bradley_terry, independent_pairs, leaning, objective, random_world, second_moment

ANSWERS, DIMENSIONS, SEED, BETA = 24, 3, 5, 0.5
SHIFTS = tuple(0.25 * k for k in range(13))
LABELS, REPEATS = 1000, 15

Weighting = Callable[[Tensor, Tensor, Preferences], Tensor]
"""From log pi(y), log mu(y) and the pairs to the pairs' weights; shape (P,)."""


@dataclass(frozen=True, slots=True)
class Method:
    """Regret against the best policy of the class: on the population, and the median over samples of `labels`."""

    name: str
    population: list[float]
    finite: list[float]


@dataclass(frozen=True, slots=True)
class Results:
    """shifts: kappa, how far mu = pi_ref * exp(-kappa r) leans to bad answers.

    effective_share: 1 / E_mu w^2 of weights towards the best policy of the class; gap_*: regrets where mu gives
    the third of the answers with the lowest reward alone.
    """

    answers: int
    dimensions: int
    beta: float
    labels: int
    repeats: int
    shifts: list[float]
    methods: list[Method]
    effective_share: list[float]
    reference_regret: float
    gap_unweighted: float
    gap_weighted: float


def unweighted(log_pi_Y: Tensor, log_mu_Y: Tensor, preferences: Preferences) -> Tensor:
    return torch.ones_like(preferences.weight_P)


def importance(log_pi_Y: Tensor, log_mu_Y: Tensor, preferences: Preferences) -> Tensor:
    """eq. 26 (importance), pi(y_w) pi(y_l) / (mu(y_w) mu(y_l)): pairs of mu stand for pairs of the policy."""
    ratio_Y = log_pi_Y - log_mu_Y
    return (ratio_Y[preferences.chosen_P] + ratio_Y[preferences.rejected_P]).exp()


def wpo(log_pi_Y: Tensor, log_mu_Y: Tensor, preferences: Preferences) -> Tensor:
    """WPO's weights for answers of one token, eq. 27 (wpo): pi(y_w) pi(y_l) / (sum_v pi(v)^2)^2, whatever mu is."""
    collision = torch.logsumexp(2 * log_pi_Y, dim=0)
    aligned_Y = log_pi_Y - collision
    return (aligned_Y[preferences.chosen_P] + aligned_Y[preferences.rejected_P]).exp()


METHODS: dict[str, Weighting] = {"DPO": unweighted, "IS": importance, "WPO": wpo}


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A world, a class of policies, and log pi(y) of the class's best."""

    world: World
    policy: Policy
    best_Y: Tensor

    def gap(self, preferences: Preferences, log_mu_Y: Tensor, weighting: Weighting) -> float:
        """What DPO on weighted pairs loses against the best of the class."""
        factor_P = weighting(self.best_Y, log_mu_Y, preferences)
        objective_ = dpo(BETA)
        log_pi_Y = fit(self.policy, DIMENSIONS, self.world.log_ref_Y, preferences, objective_, factor_P)
        return objective(self.world, self.best_Y, BETA) - objective(self.world, log_pi_Y, BETA)


def measure() -> Results:
    world, features_YD = misspecified_world()
    policy = log_linear(world.log_ref_Y, features_YD)
    best_Y = best_in_class(world, policy)
    case = Case(world, policy, best_Y)
    preferred = bradley_terry(world.reward_Y)
    sources = [leaning(world, shift) for shift in SHIFTS]
    generator = torch.Generator().manual_seed(SEED)
    drawn = [
        [sample(independent_pairs(log_mu_Y), preferred, LABELS, generator) for _ in range(REPEATS)]
        for log_mu_Y in sources
    ]

    methods = [
        Method(
            name,
            [case.gap(population(independent_pairs(log_mu_Y), preferred), log_mu_Y, weighting) for log_mu_Y in sources],
            [
                statistics.median(case.gap(preferences, log_mu_Y, weighting) for preferences in repeats)
                for log_mu_Y, repeats in zip(sources, drawn, strict=True)
            ],
        )
        for name, weighting in METHODS.items()
    ]
    worst = world.reward_Y < world.reward_Y.quantile(1 / 3)
    log_mu_Y = F.log_softmax(torch.where(worst, world.log_ref_Y, -torch.inf), dim=0)
    uncovered = population(independent_pairs(log_mu_Y), preferred)
    return Results(
        answers=ANSWERS,
        dimensions=DIMENSIONS,
        beta=BETA,
        labels=LABELS,
        repeats=REPEATS,
        shifts=list(SHIFTS),
        methods=methods,
        effective_share=[1 / second_moment(best_Y, log_mu_Y) ** 2 for log_mu_Y in sources],
        reference_regret=objective(world, best_Y, BETA) - objective(world, world.log_ref_Y, BETA),
        gap_unweighted=case.gap(uncovered, log_mu_Y, unweighted),
        gap_weighted=case.gap(uncovered, log_mu_Y, importance),
    )


def misspecified_world() -> tuple[World, Tensor]:
    """Rewards that are half a linear function of the features and half something else."""
    world = random_world(ANSWERS, SEED)
    generator = torch.Generator().manual_seed(SEED + 1)
    features_YD = torch.randn(ANSWERS, DIMENSIONS, generator=generator, dtype=torch.float64)
    reward_Y = features_YD @ torch.ones(DIMENSIONS, dtype=torch.float64) / DIMENSIONS**0.5 + world.reward_Y
    return World(world.log_ref_Y, reward_Y / 2**0.5), features_YD


def best_in_class(world: World, policy: Policy) -> Tensor:
    """log pi(y) of the class's policy with the highest J."""

    def loss(theta: Tensor) -> Tensor:
        log_pi_Y = policy(theta)
        return (log_pi_Y.exp() * (BETA * (log_pi_Y - world.log_ref_Y) - world.reward_Y)).sum()

    return policy(minimise(loss, DIMENSIONS))


def draw(results: Results) -> Figure:
    figure, (population_, finite, share) = drawing.panels(3, height=2.4)
    colors = (drawing.BLUE, drawing.GREEN, drawing.ORANGE)
    for method, color in zip(results.methods, colors, strict=True):
        population_.plot(results.shifts, method.population, color=color, label=method.name)
        finite.plot(results.shifts, method.finite, color=color, marker="o", markersize=3)
    population_.set_ylabel(r"$\max_\Pi J-J(\pi)$")
    population_.legend()
    population_.set_title(r"$N=\infty$", fontsize=10)
    finite.set_title(f"$N={results.labels}$", fontsize=10)
    share.semilogy(results.shifts, results.effective_share, color=drawing.GREEN)
    share.axhline(1 / results.labels, color="black", linewidth=0.5)
    share.set_title(r"$1/\mathrm{E}_\mu w^2$", fontsize=10)
    for ax in (population_, finite, share):
        ax.set_xlabel(r"$\kappa$")
    population_.set_ylim(bottom=0)
    finite.set_ylim(bottom=0)
    return figure
