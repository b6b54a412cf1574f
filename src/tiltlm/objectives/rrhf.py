"""RRHF."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored


@dataclass(frozen=True, config=SETTINGS)
class RrhfSettings:
    """What `rrhf` may be given."""

    rank_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the ranking beside the likelihood of the best answer. The authors' code has 100, beside a mean of
    tokens in place of their sum."""


def rrhf(scored: Scored, settings: RrhfSettings) -> LossOutput:
    """RRHF: every answer at least as likely per token as those that are worse, and the best one learnt; no reference.

        loss = rank_weight * sum over i, j with s_i > s_j of max(0, p_j - p_i)  -  log pi(y_best|x),
        p = log pi(y|x) / |y|

    (arXiv 2304.05302, where rank_weight is 1.) The best is the first of those of the highest score. Answers of equal
    scores are not compared. Peers: the authors' code (https://github.com/GanjinZero/RRHF) weighs the first part by 100,
    and has for the second the mean over every position of the best answer's padded row, prompt and padding included, so
    that the same answer counts less beside a longer one.

    Units: nats per list. At the start it has no value of its own.
    Rewards: p, per token and without a reference.
    """
    assert scored.scores_N is not None
    means_N = scored.logps_N / scored.tokens_N
    means_UK, there_UK = scored.in_lists(means_N)
    scores_UK, _ = scored.in_lists(scored.scores_N)
    logps_UK, _ = scored.in_lists(scored.logps_N)
    ordered_UKK = (scores_UK[:, :, None] > scores_UK[:, None, :]) & there_UK[:, :, None] & there_UK[:, None, :]
    wrong_UKK = (means_UK[:, None, :] - means_UK[:, :, None]).clamp(min=0)
    ranked_U = wrong_UKK.masked_fill(~ordered_UKK, 0).sum(dim=(1, 2))
    return LossOutput(settings.rank_weight * ranked_U - logps_UK[:, 0], means_N.detach())


RRHF = Objective(
    name="rrhf",
    loss=rrhf,
    settings=RrhfSettings,
    needs=Needs(unit="list", reference=False, counts=True, scores="order"),
    what="RRHF: ranks answers by likelihood per token and imitates the best; lists without a reference, cheaply.",
)
