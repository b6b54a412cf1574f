"""The chosen answer's probability falls while the loss does what it should (Proposition 10 (displacement))."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments import drawing
from experiments.learning import Policy, Preferences, descend, dpo, log_linear, mean_loss, tabular

BETA, STEPS, EVERY, STEP_SIZE = 0.5, 600, 4, 0.25
DPO = dpo(BETA)
REFERENCE = (0.45, 0.45, 0.10)
CHOSEN, REJECTED, OTHER = 0, 1, 2
FEATURES = (1.0, 0.4, 2.0)
"""One number an answer: a policy that must raise the chosen against the rejected raises the third answer more."""


@dataclass(frozen=True, slots=True)
class Path:
    """log pi(y) - log pi_ref(y) of the chosen, the rejected and the third answer, and the loss, at Results.steps."""

    chosen: list[float]
    rejected: list[float]
    other: list[float]
    loss: list[float]


@dataclass(frozen=True, slots=True)
class Results:
    """turning_step: where the chosen answer is likeliest; predicted_step: where mean phi passes phi(chosen)."""

    beta: float
    features: list[float]
    steps: list[int]
    tabular: Path
    shared: Path
    turning_step: int
    predicted_step: int
    last_other_probability: float


def measure() -> Results:
    log_ref_Y = torch.tensor(REFERENCE, dtype=torch.float64).log()
    features_YD = torch.tensor(FEATURES, dtype=torch.float64)[:, None]
    alone = _path(tabular(log_ref_Y), 3, log_ref_Y)
    shared = _path(log_linear(log_ref_Y, features_YD), 1, log_ref_Y)
    mean_feature_T = shared.exp() @ features_YD[:, 0]
    return Results(
        beta=BETA,
        features=list(FEATURES),
        steps=list(range(0, STEPS + 1, EVERY)),
        tabular=_described(alone, log_ref_Y),
        shared=_described(shared, log_ref_Y),
        turning_step=int(shared[:, CHOSEN].argmax()),
        predicted_step=int((mean_feature_T > FEATURES[CHOSEN]).nonzero()[0, 0]),
        last_other_probability=shared[-1, OTHER].exp().item(),
    )


def one_pair() -> Preferences:
    return Preferences(torch.tensor([CHOSEN]), torch.tensor([REJECTED]), torch.ones(1, dtype=torch.float64))


def _path(policy: Policy, parameters: int, log_ref_Y: Tensor) -> Tensor:
    """log pi(y) after each step; shape (STEPS + 1, Y)."""
    steps = descend(policy, parameters, log_ref_Y, one_pair(), DPO, STEP_SIZE)
    return torch.stack(list(islice(steps, STEPS + 1)))


def _described(path_TY: Tensor, log_ref_Y: Tensor) -> Path:
    ratio_TY = (path_TY - log_ref_Y)[::EVERY]
    return Path(
        chosen=ratio_TY[:, CHOSEN].tolist(),
        rejected=ratio_TY[:, REJECTED].tolist(),
        other=ratio_TY[:, OTHER].tolist(),
        loss=[mean_loss(log_pi_Y, log_ref_Y, one_pair(), DPO).item() for log_pi_Y in path_TY[::EVERY]],
    )


def draw(results: Results) -> Figure:
    figure, axes = drawing.panels(2, height=2.5)
    for ax, path, title in zip(
        axes, (results.tabular, results.shared), (r"$\theta\in\mathbb{R}^3$", r"$\theta\in\mathbb{R}$"), strict=True
    ):
        ax.plot(results.steps, path.chosen, color=drawing.GREEN, label=r"$y_w$")
        ax.plot(results.steps, path.rejected, color=drawing.RED, label=r"$y_l$")
        ax.plot(results.steps, path.other, color=drawing.GREY, label=r"$y_3$")
        ax.axhline(0, color="black", linewidth=0.5)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("$t$")
        ax.set_ylabel(r"$\log\,\pi_\theta/\pi_{\mathrm{ref}}$")
    axes[1].axvline(results.predicted_step, color=drawing.GREEN, linestyle=":", linewidth=1)
    axes[0].legend(loc="lower left")
    return figure
