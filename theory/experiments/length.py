"""A bias of the labels towards longer answers is multiplied by 1/beta, a token at a time (Proposition 11 (length))."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from experiments import drawing
from experiments.learning import dpo, mean_loss, minimise, population
from experiments.world import bradley_terry, independent_pairs

CONTINUES = 0.6
LONGEST = 8
BETAS = (0.1, 0.3, 1.0)
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
"""Biases tried, as shares of the threshold beta * log(1/q)."""


@dataclass(frozen=True, slots=True)
class Setting:
    """alpha: bias in logits a token; mean lengths in tokens, as the statement gives them and as DPO learned them."""

    beta: float
    threshold: float
    alpha: list[float]
    exact: list[float]
    learned: list[float]


@dataclass(frozen=True, slots=True)
class Results:
    """twenty_token_*: the bias per token, at beta = 0.1 and a mean of 20 tokens, from which on no optimum is left, and
    how often labels then prefer an answer that is ten tokens longer.
    """

    continues: float
    longest: int
    settings: list[Setting]
    twenty_token_threshold: float
    twenty_token_preference: float


def measure() -> Results:
    settings = []
    for beta in BETAS:
        threshold = runaway_bias(CONTINUES, beta)
        alphas = [share * threshold for share in SHARES]
        settings.append(
            Setting(
                beta=beta,
                threshold=threshold,
                alpha=alphas,
                exact=[1 / (1 - CONTINUES * math.exp(alpha / beta)) for alpha in alphas],
                learned=[1 / (1 - learned_continuation(alpha, beta)) for alpha in alphas],
            )
        )
    twenty = runaway_bias(0.95, 0.1)
    return Results(
        continues=CONTINUES,
        longest=LONGEST,
        settings=settings,
        twenty_token_threshold=twenty,
        twenty_token_preference=1 / (1 + math.exp(-10 * twenty)),
    )


def runaway_bias(continues: float, beta: float) -> float:
    """The bias a token at which no optimum is left: beta * log(1/q)."""
    return beta * math.log(1 / continues)


def learned_continuation(alpha: float, beta: float) -> float:
    """The probability to go on after a token, learned from pairs of at most LONGEST tokens judged by length alone."""
    tokens_Y = torch.arange(1, LONGEST + 1)
    start = math.log(CONTINUES / (1 - CONTINUES))

    def log_pi(theta: Tensor) -> Tensor:
        logit = start + theta[0]
        return (tokens_Y - 1) * F.logsigmoid(logit) + F.logsigmoid(-logit)

    log_ref_Y = log_pi(torch.zeros(1, dtype=torch.float64))
    preferences = population(
        independent_pairs(F.log_softmax(log_ref_Y, dim=0)), bradley_terry(alpha * tokens_Y.double())
    )
    objective = dpo(beta)
    theta = minimise(lambda theta: mean_loss(log_pi(theta), log_ref_Y, preferences, objective, tokens_Y), 1)
    return torch.sigmoid(start + theta[0]).item()


def draw(results: Results) -> Figure:
    figure, (lengths, thresholds) = drawing.panels(2, height=2.6)
    colors = (drawing.BLUE, drawing.GREEN, drawing.PURPLE)
    for setting, color in zip(results.settings, colors, strict=True):
        fine = [setting.threshold * k / 200 for k in range(196)]
        means = [1 / (1 - results.continues * math.exp(alpha / setting.beta)) for alpha in fine]
        lengths.plot(fine, means, color=color, linewidth=0.9, label=rf"$\beta={setting.beta:g}$")
        lengths.plot(setting.alpha, setting.learned, color=color, marker="o", linestyle="none")
        lengths.axvline(setting.threshold, color=color, linestyle=":", linewidth=0.8)
    lengths.axhline(results.longest, color="black", linewidth=0.5)
    lengths.set_yscale("log")
    lengths.set_ylim(2, 60)
    lengths.set_yticks([2, 5, 10, 20, 50], ["2", "5", "10", "20", "50"])
    lengths.minorticks_off()
    lengths.set_xlabel(r"$\alpha$")
    lengths.set_ylabel(r"$\mathrm{E}_\pi\,|y|$")
    lengths.legend(loc="lower right")
    means = [10 ** (0.3 + 0.05 * k) for k in range(55)]
    for setting, color in zip(results.settings, colors, strict=True):
        share = [1 / (1 + math.exp(-10 * runaway_bias(1 - 1 / mean, setting.beta))) for mean in means]
        thresholds.semilogx(means, share, color=color)
    thresholds.set_ylim(0.5, 1)
    thresholds.set_xlabel(r"$\mathrm{E}_{\pi_{\mathrm{ref}}}|y|$")
    thresholds.set_ylabel(r"$\sigma(10\,\beta\log q^{-1})$")
    return figure
