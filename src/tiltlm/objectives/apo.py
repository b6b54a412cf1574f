"""Anchored preference optimization: where both answers are to go, not only which before which."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from tiltlm.objectives.common_settings import Pull
from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides


@dataclass(frozen=True, config=SETTINGS)
class ApoSettings:
    """What `apo_zero` and `apo_down` may be given."""

    beta: Pull = 0.1


def apo_zero(scored: Scored, settings: ApoSettings) -> LossOutput:
    """APO-zero: the chosen answer up from the reference, the rejected one down from it.

        loss = 1 - sigmoid(r_w) + sigmoid(r_l),    r = beta * (log pi(y|x) - log pi_ref(y|x))

    (arXiv 2408.06266, eq. 7). Each term is bounded and has its largest slope where policy and reference agree, so that
    what moved far pulls no more. Paper and TRL: the same, with a beta of 0.1.

    Units: none, per pair; between 0 and 2. At the start, when policy and reference agree, it is 1.
    Rewards: the implicit ones, r.
    """
    rewards_N = settings.beta * scored.log_ratios()
    chosen_P, rejected_P = sides(rewards_N)
    # 1 - sigmoid(x) is sigmoid(-x), which does not cancel where it is small.
    return LossOutput((-chosen_P).sigmoid() + rejected_P.sigmoid(), rewards_N.detach())


APO_ZERO = Objective(
    name="apo_zero",
    loss=apo_zero,
    settings=ApoSettings,
    needs=Needs(),
    what="APO-zero: the chosen answer up, the rejected down; where chosen answers are better than the model's own.",
    aliases=("apo",),
)


def apo_down(scored: Scored, settings: ApoSettings) -> LossOutput:
    """APO-down: both answers down, the rejected one further.

        loss = sigmoid(r_w) + 1 - sigmoid(r_w - r_l),    r = beta * (log pi(y|x) - log pi_ref(y|x))

    (arXiv 2408.06266, eq. 8). Paper and TRL: the same, with a beta of 0.1.

    Units: none, per pair; between 0 and 2. At the start, when policy and reference agree, it is 1.
    Rewards: the implicit ones, r.
    """
    rewards_N = settings.beta * scored.log_ratios()
    chosen_P, rejected_P = sides(rewards_N)
    return LossOutput(chosen_P.sigmoid() + (rejected_P - chosen_P).sigmoid(), rewards_N.detach())


APO_DOWN = Objective(
    name="apo_down",
    loss=apo_down,
    settings=ApoSettings,
    needs=Needs(),
    what="APO-down: both answers down, the rejected further; where the model's own are better than the chosen ones.",
)
