"""A world small enough to list: one prompt, Y answers, a reference, a reward, and every quantity exactly.

Numbers of equations and statements are those of theory.pdf. All tensors are float64; log-probabilities are in nats.
Suffixes of names: Y answers, P ordered pairs (chosen, rejected).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """log_ref_Y: log pi_ref(y), normalised; reward_Y: r(y)."""

    log_ref_Y: Tensor
    reward_Y: Tensor


def random_world(answers: int, seed: int, spread: float = 1.0) -> World:
    """A reference with standard normal logits and independent standard normal rewards times `spread`."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(answers, generator=generator, dtype=torch.float64)
    reward = spread * torch.randn(answers, generator=generator, dtype=torch.float64)
    return World(F.log_softmax(logits, dim=0), reward)


def tilt(world: World, beta: float) -> Tensor:
    """log pi*(y), the reference exponentially tilted by the reward, eq. 2 (tilt); shape (Y,)."""
    return F.log_softmax(world.log_ref_Y + world.reward_Y / beta, dim=0)


def leaning(world: World, kappa: float) -> Tensor:
    """log of pi_ref(y) exp(-kappa r(y)), normalised: a maker of pairs that prefers bad answers; shape (Y,)."""
    return F.log_softmax(world.log_ref_Y - kappa * world.reward_Y, dim=0)


def log_partition(world: World, beta: float) -> float:
    """log Z = log sum_y pi_ref(y) exp(r(y) / beta)."""
    return torch.logsumexp(world.log_ref_Y + world.reward_Y / beta, dim=0).item()


def kl(log_p_Y: Tensor, log_q_Y: Tensor) -> float:
    """KL(p || q) in nats; infinite where q lacks an answer that p gives."""
    given = log_p_Y > -torch.inf
    return (log_p_Y[given].exp() * (log_p_Y[given] - log_q_Y[given])).sum().item()


def second_moment(log_target_Y: Tensor, log_mu_Y: Tensor) -> float:
    """E_mu (target/mu)^2 = 1 + chi-squared(target || mu), for one answer."""
    return torch.logsumexp(2 * log_target_Y - log_mu_Y, dim=0).exp().item()


def expected_reward(world: World, log_pi_Y: Tensor) -> float:
    return (log_pi_Y.exp() * world.reward_Y).sum().item()


def objective(world: World, log_pi_Y: Tensor, beta: float) -> float:
    """J(pi), eq. 1 (objective): expected reward less beta times KL(pi || pi_ref)."""
    return expected_reward(world, log_pi_Y) - beta * kl(log_pi_Y, world.log_ref_Y)


def regret(world: World, log_pi_Y: Tensor, beta: float) -> float:
    """J(pi*) - J(pi), by the definition of J rather than by the identity that the document proves for it."""
    return objective(world, tilt(world, beta), beta) - objective(world, log_pi_Y, beta)


def best_of_n(world: World, n: int) -> Tensor:
    """log-probabilities of the best of n answers drawn from the reference; rewards must all differ."""
    order = world.reward_Y.argsort()
    reached = world.log_ref_Y[order].exp().cumsum(dim=0).clamp(max=1.0)
    before = torch.cat([torch.zeros(1, dtype=torch.float64), reached[:-1]])
    log_best_Y = torch.empty_like(world.log_ref_Y)
    log_best_Y[order] = (reached**n - before**n).log()
    return log_best_Y


def bradley_terry(reward_Y: Tensor) -> Tensor:
    """p(i preferred to j) = sigmoid(r_i - r_j), eq. 6 (bradley-terry); shape (Y, Y)."""
    return torch.sigmoid(reward_Y[:, None] - reward_Y[None, :])


def independent_pairs(log_mu_Y: Tensor) -> Tensor:
    """mu(i, j) of two answers drawn independently and shown only if they differ; sums to 1, shape (Y, Y)."""
    mu_YY = torch.outer(log_mu_Y.exp(), log_mu_Y.exp()).fill_diagonal_(0.0)
    return mu_YY / mu_YY.sum()
