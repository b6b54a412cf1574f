"""Pairs that connect every answer lead to the tilt, whoever made them; what differs is how many are needed.

Theorem 7 (connectivity) and Proposition 12 (efficiency).
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import islice

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments import drawing
from experiments.learning import descend, dpo, fit, population, sample, tabular
from experiments.world import World, bradley_terry, independent_pairs, leaning, random_world, regret, tilt

ANSWERS, SEED, BETA, SPREAD = 10, 4, 0.7, 0.7
STEPS, STEP_SIZE = 3000, 4.0
LABELS = (4000, 8000, 16000, 32000, 64000)
REPEATS = 60
WORLDS = 400


@dataclass(frozen=True, slots=True)
class Source:
    """Pairs of one origin.

    descent: regret at Results.steps on the population. finite: mean regret of fits to samples of LABELS pairs, and its
    standard error. predicted: the regret that Proposition 12 (efficiency) predicts for them.
    """

    name: str
    descent: list[float]
    finite: list[float]
    finite_error: list[float]
    predicted: list[float]


@dataclass(frozen=True, slots=True)
class Results:
    """optimum_beats_reference, root_beats_both: in what share of random worlds pairs from pi* need fewer labels, by
    Proposition 12 (efficiency), than pairs from pi_ref, and pairs from the square root of pi* fewer than both.
    """

    beta: float
    steps: list[int]
    labels: list[int]
    repeats: int
    sources: list[Source]
    worlds: int
    optimum_beats_reference: float
    root_beats_both: float


def measure() -> Results:
    world = random_world(ANSWERS, SEED, spread=SPREAD)
    costs = [_costs(random_world(ANSWERS, seed, spread=SPREAD)) for seed in range(1000, 1000 + WORLDS)]
    steps = sorted({round(1.25**k) for k in range(40) if 1.25**k <= STEPS} | {0})
    return Results(
        beta=BETA,
        steps=steps,
        labels=list(LABELS),
        repeats=REPEATS,
        sources=[_source(world, name, mu_YY, steps) for name, mu_YY in origins(world).items()],
        worlds=WORLDS,
        optimum_beats_reference=statistics.fmean(optimum < reference for reference, optimum, _ in costs),
        root_beats_both=statistics.fmean(root < min(reference, optimum) for reference, optimum, root in costs),
    )


def origins(world: World) -> dict[str, Tensor]:
    """Distributions over pairs that connect every answer; names are mathtext."""
    uniform = torch.full((ANSWERS, ANSWERS), 1.0, dtype=torch.float64).fill_diagonal_(0.0)
    order = torch.rand(ANSWERS, generator=torch.Generator().manual_seed(SEED)).argsort()
    chain = torch.zeros_like(uniform)
    chain[order[:-1], order[1:]] = 1.0
    return {
        r"\mu=\pi_{\mathrm{ref}}": independent_pairs(world.log_ref_Y),
        r"\mu=\pi^*": independent_pairs(tilt(world, BETA)),
        r"\mu\propto\sqrt{\pi^*}": independent_pairs(tilt(world, BETA) / 2),
        r"\mu\propto\pi_{\mathrm{ref}}\,e^{-r/\beta}": independent_pairs(leaning(world, 1 / BETA)),
        r"y_1\!-\!y_2\!-\!\cdots\!-\!y_{10}": chain / chain.sum(),
    }


def _costs(world: World) -> tuple[float, float, float]:
    """Predicted regret for one label of pairs from pi_ref, pi* and the square root of pi*."""
    best = tilt(world, BETA)
    reference, optimum, root = (
        predicted_regret(world, independent_pairs(log_mu_Y), BETA, labels=1)
        for log_mu_Y in (world.log_ref_Y, best, best / 2)
    )
    return reference, optimum, root


def predicted_regret(world: World, mu_YY: Tensor, beta: float, labels: int) -> float:
    """tr(S L^+) / (2 beta N), eq. 23 (efficiency): S is the covariance of pi*, L the information of a labelled pair."""
    probability = tilt(world, beta).exp()
    covariance = torch.diag(probability) - torch.outer(probability, probability)
    p = bradley_terry(world.reward_Y)
    information_YY = (mu_YY + mu_YY.T) * p * (1 - p)
    laplacian = torch.diag(information_YY.sum(dim=1)) - information_YY
    return (torch.trace(covariance @ torch.linalg.pinv(laplacian, hermitian=True)) / (2 * beta * labels)).item()


def _source(world: World, name: str, mu_YY: Tensor, steps: list[int]) -> Source:
    preferred = bradley_terry(world.reward_Y)
    policy, objective = tabular(world.log_ref_Y), dpo(BETA)
    path = list(
        islice(
            descend(policy, ANSWERS, world.log_ref_Y, population(mu_YY, preferred), objective, STEP_SIZE),
            steps[-1] + 1,
        )
    )
    generator = torch.Generator().manual_seed(SEED)
    finite, finite_error = [], []
    for labels in LABELS:
        fits = [
            fit(policy, ANSWERS, world.log_ref_Y, sample(mu_YY, preferred, labels, generator), objective)
            for _ in range(REPEATS)
        ]
        regrets = [regret(world, log_pi_Y, BETA) for log_pi_Y in fits]
        finite.append(statistics.fmean(regrets))
        finite_error.append(statistics.stdev(regrets) / REPEATS**0.5)
    return Source(
        name=name,
        descent=[regret(world, path[step], BETA) for step in steps],
        finite=finite,
        finite_error=finite_error,
        predicted=[predicted_regret(world, mu_YY, BETA, labels) for labels in LABELS],
    )


def draw(results: Results) -> Figure:
    figure, (descent, finite) = drawing.panels(2, height=2.7)
    colors = (drawing.BLUE, drawing.GREEN, drawing.PURPLE, drawing.RED, drawing.ORANGE)
    for source, color in zip(results.sources, colors, strict=True):
        label = f"${source.name}$"
        descent.loglog(results.steps, [max(v, 1e-17) for v in source.descent], color=color, label=label)
        finite.loglog(results.labels, source.predicted, color=color, linewidth=0.9, linestyle="--")
        bars = [2 * error for error in source.finite_error]
        finite.errorbar(results.labels, source.finite, bars, color=color, marker="o", linestyle="none", markersize=3)
    descent.set_ylim(1e-9, 1)
    descent.set_xlabel("$t$")
    descent.set_ylabel(drawing.REGRET)
    descent.legend(loc="lower left")
    finite.set_xticks(results.labels, [f"{labels // 1000}k" for labels in results.labels])
    finite.minorticks_off()
    finite.set_xlabel("$N$")
    finite.set_ylabel(drawing.REGRET)
    return figure
