"""TDPO, which adds to DPO's margin how far every token's whole distribution is from the reference's.

Notation: k(y) = sum over y's tokens t of KL(pi_ref(.|x, y_<t) || pi(.|x, y_<t)), in nats, the sequential KL divergence;
h as in `dpo`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides
from tiltlm.objectives.logistic import log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, config=SETTINGS)
class Tdpo1Settings:
    """What `tdpo1` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the pull towards the reference: reward per nat of KL, as in DPO."""


@dataclass(frozen=True, config=SETTINGS)
class Tdpo2Settings:
    """What `tdpo2` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the pull towards the reference: reward per nat of KL, as in DPO."""
    alpha: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the divergences in the margin. 0: DPO."""


def tdpo1(scored: Scored, settings: Tdpo1Settings) -> LossOutput:
    """TDPO1: DPO whose margin gives credit for a chosen answer along which the policy keeps far from the reference.

        loss = -log sigmoid(beta * (h - (k(y_l) - k(y_w))))

    (arXiv 2404.11999; `tdpo_loss` of the authors' code, https://github.com/Vance0124/Token-level-Direct-Preference-Optimization).
    It follows from a Bradley-Terry model of rewards of single tokens. Both divergences have a gradient.

    Units: nats per pair. At the start, when policy and reference agree, it is ln 2.
    Rewards: beta * (log pi - log pi_ref + k), as the authors report them: they are what the loss compares.
    """
    divergence_N = _divergences(scored)
    values_N = scored.log_ratios() + divergence_N
    chosen_P, rejected_P = sides(values_N)
    losses_P = -log_sigmoid(settings.beta * (chosen_P - rejected_P))
    return LossOutput(losses_P, settings.beta * values_N.detach())


def tdpo2(scored: Scored, settings: Tdpo2Settings) -> LossOutput:
    """TDPO2: DPO that holds the rejected answer's divergence down to the chosen one's.

        loss = -log sigmoid(beta * (h - alpha * (k(y_l) - stop_gradient(k(y_w)))))

    (arXiv 2404.11999; `tdpo_loss` of the authors' code, with `if_tdpo2`).
    The chosen answer's divergence is the mark that the rejected one's is measured by, and has no gradient.

    Units: nats per pair. At the start, when policy and reference agree, it is ln 2.
    Rewards: beta * (log pi - log pi_ref + k), as the authors report them; the loss compares them with alpha before k.
    """
    log_ratios_N, divergence_N = scored.log_ratios(), _divergences(scored)
    chosen_P, rejected_P = sides(log_ratios_N)
    chosen_kl_P, rejected_kl_P = sides(divergence_N)
    apart_P = rejected_kl_P - chosen_kl_P.detach()
    losses_P = -log_sigmoid(settings.beta * (chosen_P - rejected_P - settings.alpha * apart_P))
    return LossOutput(losses_P, settings.beta * (log_ratios_N + divergence_N).detach())


def _divergences(scored: Scored) -> Tensor:
    """k(y) of each sequence, shape (N,)."""
    assert scored.reference_kl_T is not None
    return scored.sums(scored.reference_kl_T)


TDPO1 = Objective(
    name="tdpo1",
    loss=tdpo1,
    settings=Tdpo1Settings,
    needs=Needs(live=True),
    what="TDPO1: DPO with each token's whole divergence from the reference in the margin; `tdpo2` is the one to try.",
)

TDPO2 = Objective(
    name="tdpo2",
    loss=tdpo2,
    settings=Tdpo2Settings,
    needs=Needs(live=True),
    what="TDPO2: DPO that holds down how far rejected answers stray from the reference; where answers lose variety.",
    aliases=("tdpo",),
    detaches=True,
)
