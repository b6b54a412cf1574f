"""What log-probabilities alone tell of the pairs' origin.

Proposition 18 (surprise) and Proposition 19 (effective).
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from experiments import drawing
from experiments.world import kl, random_world, second_moment, tilt

TOKENS, SEED, BETA = 12, 7, 4.0
TEMPERATURES = tuple(0.3 + 0.05 * k for k in range(55))
LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SAMPLES, REPEATS = 1000, 25


@dataclass(frozen=True, slots=True)
class Family:
    """A model at several temperatures: KL(mu || pi_ref) and surprise gap, in nats a token."""

    kl: list[float]
    gap: list[float]


@dataclass(frozen=True, slots=True)
class Results:
    """own: the reference at other temperatures; other: another model. unnoticed_*: a temperature at which the other
    model's gap is zero. shares: effective sample share of answers of `lengths` tokens, exact and as estimated.
    """

    own: Family
    other: Family
    unnoticed_temperature: float
    unnoticed_kl: float
    samples: int
    lengths: list[int]
    kl_per_token: float
    exact_share: list[float]
    estimated_share: list[float]


def measure() -> Results:
    world = random_world(TOKENS, SEED)
    generator = torch.Generator().manual_seed(SEED + 1)
    other_Y = F.log_softmax(
        world.log_ref_Y + 0.8 * torch.randn(TOKENS, generator=generator, dtype=torch.float64), dim=0
    )
    unnoticed = _unnoticed_temperature(other_Y, world.log_ref_Y)
    target_Y = tilt(world, BETA)
    return Results(
        own=_family(world.log_ref_Y, world.log_ref_Y),
        other=_family(other_Y, world.log_ref_Y),
        unnoticed_temperature=unnoticed,
        unnoticed_kl=kl(at_temperature(other_Y, unnoticed), world.log_ref_Y),
        samples=SAMPLES,
        lengths=list(LENGTHS),
        kl_per_token=kl(target_Y, world.log_ref_Y),
        exact_share=[second_moment(target_Y, world.log_ref_Y) ** -length for length in LENGTHS],
        estimated_share=[
            statistics.median(
                effective_share(_log_weights(target_Y, world.log_ref_Y, length, generator)) for _ in range(REPEATS)
            )
            for length in LENGTHS
        ],
    )


def at_temperature(log_p_Y: Tensor, temperature: float) -> Tensor:
    return F.log_softmax(log_p_Y / temperature, dim=0)


def surprise_gap(log_mu_Y: Tensor, log_ref_Y: Tensor) -> float:
    """E_mu[-log pi_ref] less the reference's entropy, which its own samples would show: eq. 29 (surprise)."""
    return ((log_ref_Y.exp() - log_mu_Y.exp()) * log_ref_Y).sum().item()


def effective_share(log_weight_N: Tensor) -> float:
    """(sum w)^2 / (N sum w^2), between 1/N and 1: eq. 30 (effective)."""
    return torch.exp(2 * torch.logsumexp(log_weight_N, dim=0) - torch.logsumexp(2 * log_weight_N, dim=0)).item() / len(
        log_weight_N
    )


def _log_weights(log_pi_Y: Tensor, log_ref_Y: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """log pi/pi_ref of SAMPLES answers of `length` independent tokens drawn from the reference."""
    drawn = torch.multinomial(log_ref_Y.exp(), SAMPLES * length, replacement=True, generator=generator)
    return (log_pi_Y - log_ref_Y)[drawn].reshape(SAMPLES, length).sum(dim=1)


def _family(log_p_Y: Tensor, log_ref_Y: Tensor) -> Family:
    tempered = [at_temperature(log_p_Y, temperature) for temperature in TEMPERATURES]
    return Family([kl(q, log_ref_Y) for q in tempered], [surprise_gap(q, log_ref_Y) for q in tempered])


def _unnoticed_temperature(log_p_Y: Tensor, log_ref_Y: Tensor) -> float:
    """A root of the gap in the temperature, by bisection."""
    low, high = TEMPERATURES[0], TEMPERATURES[-1]
    for _ in range(60):
        middle = (low + high) / 2
        if surprise_gap(at_temperature(log_p_Y, middle), log_ref_Y) < 0:
            low = middle
        else:
            high = middle
    return low


def draw(results: Results) -> Figure:
    figure, (gaps, shares) = drawing.panels(2, height=2.5)
    gaps.axhline(0, color="black", linewidth=0.5)
    gaps.plot(results.own.kl, results.own.gap, color=drawing.BLUE, label=r"$\mu\propto\pi_{\mathrm{ref}}^{1/T}$")
    gaps.plot(results.other.kl, results.other.gap, color=drawing.ORANGE, label=r"$\mu\propto q^{1/T}$")
    gaps.plot(results.unnoticed_kl, 0, marker="o", color=drawing.RED, linestyle="none")
    gaps.plot(0, 0, marker="o", color="black", linestyle="none")
    gaps.set_xlabel(r"$\mathrm{KL}(\mu\,\Vert\,\pi_{\mathrm{ref}})$")
    gaps.set_ylabel(r"$\mathrm{E}_\mu[-\log\pi_{\mathrm{ref}}]-H(\pi_{\mathrm{ref}})$")
    gaps.legend()
    n = results.lengths
    shares.loglog(n, results.exact_share, color="black", label=r"$1/\mathrm{E}w^2$")
    shares.loglog(n, results.estimated_share, color=drawing.GREEN, marker="o", label=r"$N_{\mathrm{eff}}/N$")
    bound = [math.exp(-results.kl_per_token * tokens) for tokens in n]
    shares.loglog(n, bound, color=drawing.GREY, linestyle="--", label=r"$e^{-\mathrm{KL}}$")
    shares.axhline(1 / results.samples, color="black", linewidth=0.5)
    shares.set_ylim(1e-6, 1.5)
    shares.set_xlabel(r"$|y|$")
    shares.set_ylabel(r"$N_{\mathrm{eff}}/N$")
    shares.legend(loc="lower left")
    return figure
