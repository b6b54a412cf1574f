"""PRO."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored
from tiltlm.objectives.logistic import log_sigmoid


@dataclass(frozen=True, config=SETTINGS)
class ProSettings:
    """What `pro` may be given."""

    sft_weight: Annotated[float, Field(ge=0)] = 0.05
    """Weight of the best answer's likelihood, times (K - 1)^2 for a list of K answers."""


def pro(scored: Scored, settings: ProSettings) -> LossOutput:
    """PRO: each answer against all below it, the more so the further their scores are apart, and the best one learnt.

        loss = sum over k < K of -log [ exp(p_k * t_k) / (exp(p_k * t_k) + sum over i of exp(p_i * (s_k - s_i))) ]
               - sft_weight * (K - 1)^2 * log pi(y_1|x),    i: those below k,
        p = log pi(y|x) / |y|,    t_k = max over i below k of (s_k - s_i)

    (arXiv 2306.17492; s are the data's scores, 1 / (s_k - s_i) the paper's temperatures). Answers of equal scores are
    in no order, so neither is below the other: their temperature would be infinite. The sum of the best answer's
    log-probabilities, and a weight of 0.05, are those of the authors' code
    (https://github.com/AlibabaResearch/DAMO-ConvAI, `PRO/train`, with its script for HH). Peers: that code has a 1 in
    the sum for an answer of equal score, and adds 1e-10 within the logarithm.

    Units: nats per list. At the start it has no value of its own.
    Rewards: p, per token and without a reference.
    """
    assert scored.scores_N is not None
    means_N = scored.logps_N / scored.tokens_N
    means_UK, there_UK = scored.in_lists(means_N)
    scores_UK, _ = scored.in_lists(scored.scores_N)
    logps_UK, _ = scored.in_lists(scored.logps_N)
    apart_UKK = scores_UK[:, :, None] - scores_UK[:, None, :]
    below_UKK = (apart_UKK > 0) & there_UK[:, :, None] & there_UK[:, None, :]
    apart_UKK = apart_UKK.masked_fill(~below_UKK, 0)
    own_UK = means_UK * apart_UKK.amax(dim=2)
    odds_UK = (
        (means_UK[:, None, :] * apart_UKK - own_UK[:, :, None]).masked_fill(~below_UKK, -math.inf).logsumexp(dim=2)
    )
    losses_UK = -log_sigmoid(-odds_UK.masked_fill(~below_UKK.any(dim=2), -math.inf))
    learnt_U = settings.sft_weight * (there_UK.sum(dim=1) - 1).square().to(logps_UK.dtype) * logps_UK[:, 0]
    return LossOutput(losses_UK.sum(dim=1) - learnt_U, means_N.detach())


PRO = Objective(
    name="pro",
    loss=pro,
    settings=ProSettings,
    needs=Needs(unit="list", reference=False, counts=True, scores="value"),
    what="PRO: ranks answers by likelihood per token, by how far their scores are apart, and imitates the best.",
)
