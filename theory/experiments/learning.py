"""Preferences over a world's answers, and the trainer's own objectives minimised on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.dpo import SigmoidSettings
from tiltlm.objectives.interface import CHOSEN, REJECTED, Scored
from tiltlm.objectives.ipo import IpoSettings

Policy = Callable[[Tensor], Tensor]
"""From parameters to log pi(y); shape (Y,)."""

Reweighting = Callable[[Tensor, "Preferences"], Tensor]
"""From log pi(y), detached, and the preferences to a factor on each pair's weight; shape (P,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Preferences:
    """Ordered pairs: answer chosen_P was preferred to rejected_P with weight weight_P; the weights sum to 1."""

    chosen_P: Tensor
    rejected_P: Tensor
    weight_P: Tensor


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective of the trainer by name, with its settings."""

    name: str
    settings: SigmoidSettings | IpoSettings


def dpo(beta: float, label_smoothing: float = 0.0) -> Objective:
    """DPO, eq. 10 (dpo), or with smoothed labels, eq. 18 (smoothed)."""
    return Objective("sigmoid", SigmoidSettings(beta=beta, label_smoothing=label_smoothing))


def ipo(beta: float) -> Objective:
    """IPO, eq. 19 (ipo)."""
    return Objective("ipo", IpoSettings(beta=beta))


def population(mu_YY: Tensor, preferred_YY: Tensor) -> Preferences:
    """All of a population: pair (i, j) shown with probability mu, i preferred with probability preferred[i, j]."""
    weight_YY = (mu_YY + mu_YY.T) * preferred_YY
    chosen_P, rejected_P = weight_YY.nonzero(as_tuple=True)
    weight_P = weight_YY[chosen_P, rejected_P]
    return Preferences(chosen_P, rejected_P, weight_P / weight_P.sum())


def sample(mu_YY: Tensor, preferred_YY: Tensor, pairs: int, generator: torch.Generator) -> Preferences:
    """`pairs` pairs shown by mu and labelled once each."""
    whole = population(mu_YY, preferred_YY)
    drawn = torch.multinomial(whole.weight_P, pairs, replacement=True, generator=generator)
    counts = torch.bincount(drawn, minlength=len(whole.weight_P))
    seen = counts > 0
    return Preferences(whole.chosen_P[seen], whole.rejected_P[seen], counts[seen] / pairs)


def tabular(log_ref_Y: Tensor) -> Policy:
    """One logit an answer, starting from the reference."""
    return lambda theta: F.log_softmax(log_ref_Y + theta, dim=0)


def log_linear(log_ref_Y: Tensor, features_YD: Tensor) -> Policy:
    """Answers that share D parameters: log pi(y) = log pi_ref(y) + <theta, phi(y)> - log of the sum."""
    return lambda theta: F.log_softmax(log_ref_Y + features_YD @ theta, dim=0)


def mean_loss(
    log_pi_Y: Tensor,
    log_ref_Y: Tensor,
    preferences: Preferences,
    objective: Objective,
    tokens_Y: Tensor | None = None,
    factor_P: Tensor | None = None,
) -> Tensor:
    """The trainer's loss, averaged over the preferences; answers are one token long unless tokens_Y says otherwise."""
    tokens_Y = torch.ones_like(log_ref_Y, dtype=torch.int64) if tokens_Y is None else tokens_Y

    def of_pairs(values_Y: Tensor) -> Tensor:
        return torch.stack([values_Y[preferences.chosen_P], values_Y[preferences.rejected_P]], dim=1).flatten()

    pairs = len(preferences.weight_P)
    labels_N = torch.tensor([CHOSEN, REJECTED] * pairs, dtype=torch.int8)
    scored = Scored(of_pairs(log_pi_Y), of_pairs(tokens_Y), labels_N, of_pairs(log_ref_Y))
    losses_P = OBJECTIVES[objective.name].loss(scored, objective.settings).losses_U
    weight_P = preferences.weight_P if factor_P is None else preferences.weight_P * factor_P
    return (weight_P * losses_P).sum() / weight_P.sum()


def descend(
    policy: Policy,
    parameters: int,
    log_ref_Y: Tensor,
    preferences: Preferences,
    objective: Objective,
    step_size: float,
    reweighting: Reweighting | None = None,
) -> Iterator[Tensor]:
    """Plain gradient descent from zero: log pi(y) at the start, then after each step, for as long as it is asked."""
    theta = torch.zeros(parameters, dtype=torch.float64, requires_grad=True)
    while True:
        log_pi_Y = policy(theta)
        yield log_pi_Y.detach()
        factor_P = None if reweighting is None else reweighting(log_pi_Y.detach(), preferences)
        loss = mean_loss(log_pi_Y, log_ref_Y, preferences, objective, factor_P=factor_P)
        (gradient,) = torch.autograd.grad(loss, theta)
        with torch.no_grad():
            theta -= step_size * gradient


def minimise(loss: Callable[[Tensor], Tensor], parameters: int) -> Tensor:
    """The minimiser that Newton's method reaches from zero, with steps halved until they descend.

    Curvatures are taken by their absolute value, so that it descends where the loss is not convex; directions in which
    the loss is flat are not moved along, so among equal minimisers of a convex loss it is the nearest to zero. Where
    none exists (separable labels) it stops after 60 steps, far out.
    """
    theta = torch.zeros(parameters, dtype=torch.float64)
    value, gradient, hessian = _expansion(loss, theta)
    for _ in range(60):
        curvature, direction = torch.linalg.eigh(hessian)
        curved = curvature.abs() > 1e-12 * curvature.abs().max()
        step = direction[:, curved] @ ((direction[:, curved].T @ gradient) / curvature[curved].abs())
        slope = (gradient @ step).item()
        if slope < 1e-24:
            break
        scale = 1.0
        while loss(theta - scale * step).item() > value - 1e-4 * scale * slope + 1e-14 and scale > 1e-6:
            scale /= 2
        theta = theta - scale * step
        value, gradient, hessian = _expansion(loss, theta)
    return theta


def _expansion(loss: Callable[[Tensor], Tensor], theta: Tensor) -> tuple[float, Tensor, Tensor]:
    leaf = theta.clone().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
    rows = [torch.autograd.grad(g, leaf, retain_graph=True)[0] for g in gradient]
    return value.item(), gradient.detach(), torch.stack(rows)


def fit(
    policy: Policy,
    parameters: int,
    log_ref_Y: Tensor,
    preferences: Preferences,
    objective: Objective,
    factor_P: Tensor | None = None,
) -> Tensor:
    """log pi(y) of the policy that minimises the objective on the preferences; shape (Y,)."""
    theta = minimise(
        lambda theta: mean_loss(policy(theta), log_ref_Y, preferences, objective, factor_P=factor_P), parameters
    )
    return policy(theta)
