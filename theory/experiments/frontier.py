"""Reward against KL: no policy lies above the exponential tilt (Corollary 2 (frontier))."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments import drawing
from experiments.learning import Objective, dpo, fit, ipo, population, sample, tabular
from experiments.world import (
    World,
    best_of_n,
    bradley_terry,
    expected_reward,
    independent_pairs,
    kl,
    random_world,
    tilt,
)

ANSWERS, SEED = 40, 1
BETAS = (4.0, 2.0, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12)
IPO_BETAS = (1.0, 0.3, 0.1, 0.06, 0.04, 0.03, 0.02, 0.01)
LABELS = 1000


@dataclass(frozen=True, slots=True)
class Curve:
    """Policies along a setting (beta, or n): KL from the reference in nats, expected reward."""

    setting: list[float]
    kl: list[float]
    reward: list[float]


@dataclass(frozen=True, slots=True)
class Results:
    """*_shortfall: the largest vertical distance of a curve's points below the exact one, in reward."""

    answers: int
    labels: int
    exact: Curve
    covered: Curve
    finite: Curve
    uncovered: Curve
    ipo: Curve
    best_of_n: Curve
    reference_reward: float
    ipo_shortfall: float
    best_of_n_shortfall: float


def measure() -> Results:
    world = random_world(ANSWERS, SEED)
    generator = torch.Generator().manual_seed(SEED)
    preferred = bradley_terry(world.reward_Y)
    everywhere = torch.full_like(world.log_ref_Y, 1 / ANSWERS).log()
    worse_half = torch.where(world.reward_Y < world.reward_Y.median(), everywhere, -torch.inf)

    def learned(
        configured: Callable[[float], Objective],
        mu_Y: Tensor,
        betas: tuple[float, ...] = BETAS,
        labels: int | None = None,
    ) -> list[Tensor]:
        mu_YY = independent_pairs(mu_Y)
        preferences = population(mu_YY, preferred) if labels is None else sample(mu_YY, preferred, labels, generator)
        return [
            fit(tabular(world.log_ref_Y), ANSWERS, world.log_ref_Y, preferences, configured(beta)) for beta in betas
        ]

    fine = [float(b) for b in torch.logspace(1.2, -1.5, 120, dtype=torch.float64)]
    numbers = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    exact = _curve(world, fine, [tilt(world, beta) for beta in fine])
    regressed = _curve(world, IPO_BETAS, learned(ipo, everywhere, IPO_BETAS))
    drawn = _curve(world, [float(n) for n in numbers], [best_of_n(world, n) for n in numbers])
    return Results(
        answers=ANSWERS,
        labels=LABELS,
        exact=exact,
        covered=_curve(world, BETAS, learned(dpo, everywhere)),
        finite=_curve(world, BETAS, learned(dpo, everywhere, labels=LABELS)),
        uncovered=_curve(world, BETAS, learned(dpo, worse_half)),
        ipo=regressed,
        best_of_n=drawn,
        reference_reward=expected_reward(world, world.log_ref_Y),
        ipo_shortfall=_shortfall(regressed, exact),
        best_of_n_shortfall=_shortfall(drawn, exact),
    )


def _curve(world: World, settings: Sequence[float], policies: Sequence[Tensor]) -> Curve:
    return Curve(
        list(settings),
        [kl(log_pi_Y, world.log_ref_Y) for log_pi_Y in policies],
        [expected_reward(world, log_pi_Y) for log_pi_Y in policies],
    )


def _shortfall(curve: Curve, exact: Curve) -> float:
    """The exact curve is read between its points, which are dense and lie on a concave line: a little too low."""
    return max(np.interp(x, exact.kl, exact.reward) - y for x, y in zip(curve.kl, curve.reward, strict=True))


def draw(results: Results) -> Figure:
    figure, (axes,) = drawing.panels(1, height=3.2)
    axes.plot(results.exact.kl, results.exact.reward, color="black", label=r"$\pi^*_\beta$", zorder=1)
    beyond_kl, beyond_reward = [*results.exact.kl, 9.0], [*results.exact.reward, results.exact.reward[-1]]
    axes.fill_between(beyond_kl, beyond_reward, 9.0, color="black", alpha=0.06, linewidth=0)
    for curve, label, color, marker in (
        (results.covered, "DPO", drawing.BLUE, "o"),
        (results.best_of_n, "best of $n$", drawing.GREEN, "s"),
        (results.ipo, "IPO", drawing.PURPLE, "D"),
        (results.finite, f"DPO, $N={results.labels}$", drawing.ORANGE, "^"),
        (results.uncovered, r"DPO, $\mathrm{supp}\,\mu\neq\mathcal{Y}$", drawing.RED, "v"),
    ):
        axes.plot(curve.kl, curve.reward, color=color, marker=marker, linewidth=0.7, label=label, clip_on=False)
    axes.set_xlim(0, 4.2)
    axes.set_ylim(-0.5, 3.2)
    axes.set_xlabel(drawing.KL_FROM_REFERENCE)
    axes.set_ylabel(drawing.EXPECTED_REWARD)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
