"""Losses that are done with a pair once its margin is wide enough."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.common_settings import NllWeight, Pull
from tiltlm.objectives.divergences import USUAL_ALPHA, Divergence, DivergenceAlpha, require_read, reward_per_beta
from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides


@dataclass(frozen=True, config=SETTINGS)
class HingeSettings:
    """What `hinge` may be given."""

    beta: Pull = 0.05
    divergence: Divergence = "reverse_kl"
    divergence_alpha: DivergenceAlpha = USUAL_ALPHA

    def __post_init__(self) -> None:
        require_read(self.divergence, self.divergence_alpha)


def hinge(scored: Scored, settings: HingeSettings) -> LossOutput:
    """The hinge of the reward margin: a pair whose margin has reached 1, which is 1 / beta nats, teaches no more.

        loss = max(0, 1 - beta * h)

    (arXiv 2309.06657, `hinge-norm`, whose gamma is beta here). Peers: TRL has it under this name with a beta of 0.1,
    and cites SLiC-HF for it, whose loss has no reference: that is `slic`.

    Units: none, per pair. At the start, when policy and reference agree, it is 1.
    Rewards: the implicit ones, beta * g(log pi - log pi_ref), with g of the divergence as in `sigmoid`.
    """
    rewards_N = reward_per_beta(scored.log_ratios(), settings.divergence, settings.divergence_alpha)
    chosen_P, rejected_P = sides(rewards_N)
    losses_P = (1 - settings.beta * (chosen_P - rejected_P)).relu()
    return LossOutput(losses_P, settings.beta * rewards_N.detach())


HINGE = Objective(
    name="hinge",
    loss=hinge,
    settings=HingeSettings,
    needs=Needs(),
    what="Hinge: asks for a margin of 1/beta nats and then rests; for data of which many pairs are learnt early.",
    aliases=("hinge_norm", "rso"),
)


@dataclass(frozen=True, config=SETTINGS)
class SlicSettings:
    """What `slic` may be given."""

    delta: Annotated[float, Field(gt=0)] = 1.0
    """Margin that the chosen answer is asked to have, in nats of log-probability."""
    nll_weight: NllWeight = 1.0


def slic(scored: Scored, settings: SlicSettings) -> LossOutput:
    """SLiC: the chosen answer likelier than the rejected one by a margin, without a reference, and imitated besides.

        loss = max(0, delta - log pi(y_w|x) + log pi(y_l|x)) - lambda * log pi(y_w|x)

    (arXiv 2305.10425, its loss of calibration and of regularisation), lambda being `nll_weight`. What keeps the policy
    near where it was is the second term: of the targets to imitate that the paper allows it takes the better answer.
    The defaults of 1 are no figures of the paper's. Peers: TRL's `hinge` cites this paper, but has a reference and no
    second term.

    Units: nats per pair. At the start it has no value of its own, since nothing stands for zero; where both answers are
    equally likely it is delta - lambda * log pi(y_w|x).
    Rewards: log pi, without a reference.
    """
    chosen_P, rejected_P = sides(scored.logps_N)
    losses_P = (settings.delta - chosen_P + rejected_P).relu() - settings.nll_weight * chosen_P
    return LossOutput(losses_P, scored.logps_N.detach())


SLIC = Objective(
    name="slic",
    loss=slic,
    settings=SlicSettings,
    needs=Needs(reference=False),
    what="SLiC: a margin between log-likelihoods, and imitation of the chosen answer in place of a reference.",
    aliases=("slic_hf",),
)
