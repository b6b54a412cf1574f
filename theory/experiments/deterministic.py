"""Labels without doubt: DPO forgets the reference at any beta, IPO and smoothed labels do not.

Proposition 9 (deterministic).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments import drawing
from experiments.learning import Objective, descend, dpo, fit, ipo, population, tabular
from experiments.world import independent_pairs, kl, random_world

ANSWERS, SEED = 5, 8
BETAS = (0.1, 0.3, 1.0)
SMOOTHING = 0.1
SWEEP = tuple(10 ** (-2 + 0.125 * k) for k in range(25))


@dataclass(frozen=True, slots=True)
class Trace:
    """KL(pi || pi_ref) in nats after each of the steps."""

    name: str
    beta: float
    kl: list[float]


@dataclass(frozen=True, slots=True)
class Results:
    """sweep_*: KL(pi || pi_ref) of the minimiser as beta varies; `ceiling` is -log pi_ref(best), where DPO goes."""

    steps: list[int]
    traces: list[Trace]
    ceiling: float
    smoothing: float
    betas: list[float]
    sweep_ipo: list[float]
    sweep_smoothed: list[float]


def measure() -> Results:
    world = random_world(ANSWERS, SEED)
    log_ref_Y = world.log_ref_Y
    uniform = independent_pairs(torch.zeros(ANSWERS, dtype=torch.float64))
    certain = (world.reward_Y[:, None] > world.reward_Y[None, :]).double()
    labels = population(uniform, certain)
    steps = sorted({round(10 ** (0.2 * k)) for k in range(16)} | {0})

    def trace(name: str, beta: float, objective: Objective) -> Trace:
        # The curvature of the sigmoid loss grows as beta^2; steps are measured in its units, so traces are comparable.
        size = 1.0 / (beta * beta) if objective.name == "sigmoid" else 0.3
        path = list(islice(descend(tabular(log_ref_Y), ANSWERS, log_ref_Y, labels, objective, size), steps[-1] + 1))
        return Trace(name, beta, [kl(path[step], log_ref_Y) for step in steps])

    def sweep(configured: Callable[[float], Objective]) -> list[Tensor]:
        return [fit(tabular(log_ref_Y), ANSWERS, log_ref_Y, labels, configured(beta)) for beta in SWEEP]

    return Results(
        steps=steps,
        traces=[
            *(trace("DPO", beta, dpo(beta)) for beta in BETAS),
            *(trace("cDPO", beta, dpo(beta, SMOOTHING)) for beta in BETAS),
            *(trace("IPO", beta, ipo(beta)) for beta in BETAS),
        ],
        ceiling=-log_ref_Y[world.reward_Y.argmax()].item(),
        smoothing=SMOOTHING,
        betas=list(SWEEP),
        sweep_ipo=[kl(log_pi_Y, log_ref_Y) for log_pi_Y in sweep(ipo)],
        sweep_smoothed=[kl(log_pi_Y, log_ref_Y) for log_pi_Y in sweep(lambda beta: dpo(beta, SMOOTHING))],
    )


def ipo_minimiser(log_ref_Y: Tensor, preferred_YY: Tensor, beta: float) -> Tensor:
    """IPO for pairs shown uniformly: log pi_ref + (wins - losses) / (2 beta Y), normalised."""
    off_diagonal = ~torch.eye(len(log_ref_Y), dtype=torch.bool)
    balance_Y = ((2 * preferred_YY - 1) * off_diagonal).sum(dim=1)
    return torch.log_softmax(log_ref_Y + balance_Y / (2 * beta * len(log_ref_Y)), dim=0)


def draw(results: Results) -> Figure:
    figure, (time, sweep) = drawing.panels(2, height=2.7)
    colors = {"DPO": drawing.RED, "cDPO": drawing.ORANGE, "IPO": drawing.PURPLE}
    styles = dict(zip(BETAS, ("-", "--", ":"), strict=True))
    for trace in results.traces:
        time.plot(results.steps, trace.kl, color=colors[trace.name], linestyle=styles[trace.beta])
    time.axhline(results.ceiling, color="black", linewidth=0.5)
    time.set_xscale("symlog", linthresh=1)
    time.set_xlim(left=0)
    time.set_ylim(top=3.1)
    time.set_xlabel("$t$")
    time.set_ylabel(drawing.KL_FROM_REFERENCE)
    for beta, style in styles.items():
        time.plot([], [], color="black", linestyle=style, label=rf"$\beta={beta:g}$")
    time.legend(loc="upper left", ncols=3, columnspacing=0.9, handlelength=1.6, borderaxespad=0)
    sweep.axhline(results.ceiling, color=drawing.RED, label="DPO")
    sweep.semilogx(results.betas, results.sweep_smoothed, color=drawing.ORANGE, label="cDPO")
    sweep.semilogx(results.betas, results.sweep_ipo, color=drawing.PURPLE, label="IPO")
    sweep.set_ylim(time.get_ylim())
    sweep.set_xlabel(r"$\beta$")
    sweep.set_ylabel(drawing.KL_FROM_REFERENCE)
    sweep.legend()
    return figure
