"""Objectives for labels of which some are wrong."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.common_settings import Pull, Smoothing
from tiltlm.objectives.divergences import USUAL_ALPHA, Divergence, DivergenceAlpha, require_read, reward_per_beta
from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides
from tiltlm.objectives.logistic import log_sigmoid


@dataclass(frozen=True, config=SETTINGS)
class RobustSettings:
    """What `robust` may be given."""

    beta: Pull = 0.1
    label_smoothing: Smoothing = 0.1
    divergence: Divergence = "reverse_kl"
    divergence_alpha: DivergenceAlpha = USUAL_ALPHA

    def __post_init__(self) -> None:
        require_read(self.divergence, self.divergence_alpha)


def robust(scored: Scored, settings: RobustSettings) -> LossOutput:
    """Robust DPO: over labels of which a share e is flipped at random, its mean is DPO's loss on the true ones.

        loss = [-(1 - e) * log sigmoid(beta * h) + e * log sigmoid(-beta * h)] / (1 - 2 * e)

    (arXiv 2403.00409, eq. 12), e being `label_smoothing`; with e = 0 it is DPO. What is subtracted makes losses
    negative where the margin is large: they have no lower bound, so a pair is never done, and e too large does harm.
    Peers: TRL's default of e is 0, which is DPO.

    Units: nats per pair. At the start, when policy and reference agree, it is ln 2 whatever e is.
    Rewards: the implicit ones, beta * g(log pi - log pi_ref), with g of the divergence as in `sigmoid`.
    """
    rewards_N = reward_per_beta(scored.log_ratios(), settings.divergence, settings.divergence_alpha)
    chosen_P, rejected_P = sides(rewards_N)
    logits_P = settings.beta * (chosen_P - rejected_P)
    e = settings.label_smoothing
    losses_P = (e * log_sigmoid(-logits_P) - (1 - e) * log_sigmoid(logits_P)) / (1 - 2 * e)
    return LossOutput(losses_P, settings.beta * rewards_N.detach())


ROBUST = Objective(
    name="robust",
    loss=robust,
    settings=RobustSettings,
    needs=Needs(),
    what="Robust DPO: DPO corrected for a known share of flipped labels; where you can tell how many are wrong.",
    aliases=("rdpo", "robust_dpo"),
)


@dataclass(frozen=True, config=SETTINGS)
class RopoSettings:
    """What `ropo` may be given."""

    beta: Pull = 0.1
    alpha: Annotated[float, Field(gt=2)] = 14.0
    """Weight of the bounded term, which forgives a pair that contradicts what was learnt; the authors try 6 to 30."""


def ropo(scored: Scored, settings: RopoSettings) -> LossOutput:
    """ROPO: DPO's loss beside a bounded one, so that pairs which contradict what was learnt pull less, not more.

        loss = 4 * a / (1 + a)^2 * (-log sigmoid(beta * h) + a * sigmoid(-beta * h))

    (arXiv 2404.04102, eq. 9 of its first version and eq. 6 of the last). The slope by beta * h is, with p =
    sigmoid(-beta * h), 4 * a / (1 + a)^2 * p * (1 + a * (1 - p)): at most 1, at p = (1 + a) / (2 * a), and smaller for
    a pair that is more surely contradicted. The paper also filters out pairs of large loss between rounds; that is no
    part of the loss, and not done here. No code of the authors' is known, and the paper's text was not at hand: the
    equation is as two implementations have it that cite those equations, the default and range are as one of them has
    them, and the scale is checked by the bound above.

    Units: none, per pair. At the start, when policy and reference agree, it is 4 * a / (1 + a)^2 * (ln 2 + a / 2).
    Rewards: the implicit ones, beta * (log pi - log pi_ref).
    """
    log_ratios_N = scored.log_ratios()
    chosen_P, rejected_P = sides(log_ratios_N)
    logits_P = settings.beta * (chosen_P - rejected_P)
    a = settings.alpha
    losses_P = 4 * a / (1 + a) ** 2 * (a * (-logits_P).sigmoid() - log_sigmoid(logits_P))
    return LossOutput(losses_P, settings.beta * log_ratios_N.detach())


ROPO = Objective(
    name="ropo",
    loss=ropo,
    settings=RopoSettings,
    needs=Needs(),
    what="ROPO: weighs down pairs that contradict what was learnt; for labels of unknown noise.",
)
