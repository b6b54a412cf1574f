"""DPO of whole rankings, under Plackett and Luce's model."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored
from tiltlm.objectives.logistic import log_sigmoid


@dataclass(frozen=True, config=SETTINGS)
class PlackettLuceSettings:
    """What `plackett_luce` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the pull towards the reference: reward per nat of KL, as in DPO."""


def plackett_luce(scored: Scored, settings: PlackettLuceSettings) -> LossOutput:
    """DPO of whole rankings: the best answer is chosen first, then the best of the rest, and so on.

        loss = -sum over k of log [ exp(r_k) / (exp(r_k) + sum over j worse than k of exp(r_j)) ],
        r = beta * (log pi(y|x) - log pi_ref(y|x))

    (theory.pdf, eq. 11 (dpo-ranking); arXiv 2305.18290, appendix A.3). Answers of equal scores are in no order, so
    neither stands in the other's sum; without any it is the paper's loss, and of two answers it is DPO.

    Units: nats per list. At the start, when policy and reference agree, it is ln K! for K answers without equals.
    Rewards: the implicit ones, r.
    """
    assert scored.scores_N is not None
    rewards_N = settings.beta * scored.log_ratios()
    # In single steps, so that of two answers it is DPO to the last bit.
    ratios_UK, there_UK = scored.in_lists(scored.log_ratios())
    scores_UK, _ = scored.in_lists(scored.scores_N)
    worse_UKK = (scores_UK[:, :, None] > scores_UK[:, None, :]) & there_UK[:, :, None] & there_UK[:, None, :]
    above_UKK = settings.beta * (ratios_UK[:, None, :] - ratios_UK[:, :, None])
    odds_UK = above_UKK.masked_fill(~worse_UKK, -math.inf).logsumexp(dim=2)
    # log(1 + exp(x)) is -log sigmoid(-x); what is worst stands above nothing.
    losses_UK = -log_sigmoid(-odds_UK.masked_fill(~worse_UKK.any(dim=2), -math.inf))
    return LossOutput(losses_UK.sum(dim=1), rewards_N.detach())


PLACKETT_LUCE = Objective(
    name="plackett_luce",
    loss=plackett_luce,
    settings=PlackettLuceSettings,
    needs=Needs(unit="list", scores="order"),
    what="DPO of rankings: each answer over all that stand below it, in one loss a list; where several are ranked.",
    aliases=("pl", "dpo_pl", "listwise_dpo"),
)
