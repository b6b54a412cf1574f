"""Pairs that leave answers out: what the loss cannot see, gradient descent decides.

Theorem 7 (connectivity) and Proposition 8 (conserved).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments import drawing
from experiments.learning import descend, dpo, population, tabular
from experiments.world import World, bradley_terry, random_world, regret, tilt

SEED, BETA = 3, 0.5
COMPONENTS = ((0, 1, 2, 3), (4, 5, 6), (7,), (8,))
ANSWERS = sum(len(component) for component in COMPONENTS)
STEPS, STEP_SIZE = 2000, 10.0
SHIFTS = tuple(-2.0 + 0.25 * k for k in range(17))


@dataclass(frozen=True, slots=True)
class Results:
    """The log-ratio u = log pi/pi_ref + constant (zero at the unseen answers) of pi*, of descent and as predicted.

    shifts: how much better the larger component is than the rest, on average; regrets of what descent makes of it.
    """

    beta: float
    components: list[list[int]]
    reward: list[float]
    optimum: list[float]
    descended: list[float]
    predicted: list[float]
    shifts: list[float]
    regrets: list[float]
    reference_regrets: list[float]


def measure() -> Results:
    world = random_world(ANSWERS, SEED)
    shifted = [World(world.log_ref_Y, _levelled(world.reward_Y, shift)) for shift in SHIFTS]
    return Results(
        beta=BETA,
        components=[list(component) for component in COMPONENTS],
        reward=world.reward_Y.tolist(),
        optimum=_log_ratio(world, tilt(world, BETA)),
        descended=_log_ratio(world, descended(world)),
        predicted=_log_ratio(world, imputed(world, BETA)),
        shifts=list(SHIFTS),
        regrets=[regret(w, imputed(w, BETA), BETA) for w in shifted],
        reference_regrets=[regret(w, w.log_ref_Y, BETA) for w in shifted],
    )


def pairs_within_components() -> Tensor:
    """mu: a component in proportion to its pairs, both answers from it."""
    mu_YY = torch.zeros(ANSWERS, ANSWERS, dtype=torch.float64)
    for component in COMPONENTS:
        for i in component:
            for j in component:
                mu_YY[i, j] = float(i != j)
    return mu_YY / mu_YY.sum()


def imputed(world: World, beta: float) -> Tensor:
    """The limit of gradient descent, every component's mean reward taken to be zero: eq. 17 (conserved)."""
    return tilt(World(world.log_ref_Y, _levelled(world.reward_Y)), beta)


def _levelled(reward_Y: Tensor, shift: float = 0.0) -> Tensor:
    """Rewards with every component's mean at zero but the first's, which is at `shift`."""
    levelled_Y = reward_Y.clone()
    for component in COMPONENTS:
        levelled_Y[list(component)] -= reward_Y[list(component)].mean()
    levelled_Y[list(COMPONENTS[0])] += shift
    return levelled_Y


def descended(world: World) -> Tensor:
    """log pi(y) that gradient descent reaches from the reference."""
    preferences = population(pairs_within_components(), bradley_terry(world.reward_Y))
    path = descend(tabular(world.log_ref_Y), ANSWERS, world.log_ref_Y, preferences, dpo(BETA), STEP_SIZE)
    return next(islice(path, STEPS, None))


def _log_ratio(world: World, log_pi_Y: Tensor) -> list[float]:
    ratio_Y = log_pi_Y - world.log_ref_Y
    return [float(v) for v in ratio_Y - ratio_Y[COMPONENTS[-1][0]]]


def draw(results: Results) -> Figure:
    figure, (ratios, regrets) = drawing.panels(2, height=2.7)
    colors = (drawing.BLUE, drawing.GREEN, drawing.GREY, drawing.GREY)
    position = 0.0
    for component, color in zip(results.components, colors, strict=True):
        for answer in sorted(component, key=lambda i: results.reward[i]):
            ratios.bar(position, results.optimum[answer], color=color, alpha=0.3, width=0.8)
            ratios.plot(position, results.descended[answer], marker="o", color=color, linestyle="none")
            ratios.plot(position, results.predicted[answer], marker="x", color="black", linestyle="none", markersize=6)
            position += 1
        position += 0.6
    ratios.axhline(0, color="black", linewidth=0.5)
    ratios.set_xticks([1.5, 5.6, 8.2, 9.8], ["$C_1$", "$C_2$", "$C_3$", "$C_4$"])
    ratios.tick_params(axis="x", length=0)
    ratios.set_ylabel(r"$\log\,\pi/\pi_{\mathrm{ref}}+\mathrm{const}$")
    regrets.plot(results.shifts, results.reference_regrets, color=drawing.GREY, label=r"$\pi_{\mathrm{ref}}$")
    regrets.plot(results.shifts, results.regrets, color=drawing.BLUE, label="DPO")
    regrets.set_xlabel(r"$\bar{r}(C_1)-\bar{r}(C_{2,3,4})$")
    regrets.set_ylabel(drawing.REGRET)
    regrets.set_ylim(bottom=0)
    regrets.legend()
    return figure
