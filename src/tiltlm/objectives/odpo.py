"""DPO that asks for a larger margin where the data scores the chosen answer higher: ODPO, and Llama 2's margin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides
from tiltlm.objectives.logistic import log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, config=SETTINGS)
class OdpoSettings:
    """What `odpo` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the pull towards the reference: reward per nat of KL, as in DPO."""
    alpha: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the offset. 0: DPO."""


@dataclass(frozen=True, config=SETTINGS)
class MarginSettings:
    """What `margin` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the pull towards the reference: reward per nat of KL, as in DPO."""


def odpo(scored: Scored, settings: OdpoSettings) -> LossOutput:
    """ODPO: DPO with an offset, the logarithm of by how much the chosen answer's score is higher.

        loss = -log sigmoid(beta * h - alpha * ln(s_w - s_l))

    (arXiv 2402.10571 and the authors' code, https://github.com/rycolab/odpo; s are the data's scores, and pairs with
    s_w <= s_l are left out by name when the data is read).
    Where s_w - s_l = 1 it is DPO, and below that less than no margin is asked for.

    Units: nats per pair. At the start, when policy and reference agree, it is ln(1 + (s_w - s_l)^alpha).
    Rewards: beta * (log pi - log pi_ref), as for `sigmoid`.
    """
    ratios_N = scored.log_ratios()
    chosen_P, rejected_P = sides(ratios_N)
    offsets_P = settings.alpha * _apart(scored).log()
    return LossOutput(
        -log_sigmoid(settings.beta * (chosen_P - rejected_P) - offsets_P), settings.beta * ratios_N.detach()
    )


def margin(scored: Scored, settings: MarginSettings) -> LossOutput:
    """DPO with the margin of Llama 2's reward models: by how much the chosen answer's score is higher.

        loss = -log sigmoid(beta * h - (s_w - s_l))

    (H. Touvron et al., arXiv 2307.09288, eq. 2 and Table 27, a loss of reward models whose margins are 1, 2/3, 1/3 or
    0, or three times as much, by how sure people were. The implicit reward in place of a reward model's is no part of
    that paper; it is `sigmoid_with_margin` of https://github.com/turbo-llm/turbo-alignment, which is given the margin.)
    Pairs with s_w <= s_l are left out by name when the data is read.

    Units: nats per pair. At the start, when policy and reference agree, it is ln(1 + exp(s_w - s_l)).
    Rewards: beta * (log pi - log pi_ref), as for `sigmoid`.
    """
    ratios_N = scored.log_ratios()
    chosen_P, rejected_P = sides(ratios_N)
    losses_P = -log_sigmoid(settings.beta * (chosen_P - rejected_P) - _apart(scored))
    return LossOutput(losses_P, settings.beta * ratios_N.detach())


def _apart(scored: Scored) -> Tensor:
    """By how much each pair's chosen answer is scored higher, shape (P,)."""
    assert scored.scores_N is not None
    chosen_P, rejected_P = sides(scored.scores_N.to(scored.logps_N.dtype))
    return chosen_P - rejected_P


ODPO = Objective(
    name="odpo",
    loss=odpo,
    settings=OdpoSettings,
    needs=Needs(scores="value"),
    what="ODPO: DPO that asks for more where the chosen answer is scored much higher; for pairs with scores.",
)
MARGIN = Objective(
    name="margin",
    loss=margin,
    settings=MarginSettings,
    needs=Needs(scores="value"),
    what="DPO with a margin: the odds must differ by as much as the scores do; for pairs with scores that say so.",
    aliases=("dpo_margin", "sigmoid_with_margin"),
)
