"""Objectives for labels of which some are wrong."""

from __future__ import annotations

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
