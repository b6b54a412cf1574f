"""LiPO."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored
from tiltlm.objectives.logistic import log_sigmoid

RESOLVED = 1e-3
"""Nats of log-ratio that ranks tell apart: above the rounding of float32 sums of some hundred tokens."""


@dataclass(frozen=True, config=SETTINGS)
class LipoSettings:
    """What `lipo_lambda` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.05
    """Strength of the pull towards the reference: reward per nat of log-ratio."""


def lipo_lambda(scored: Scored, settings: LipoSettings) -> LossOutput:
    """LiPO-lambda: DPO of every pair of a list, weighed by what swapping the two would change of the ranking's worth.

        loss = sum over i, j with s_i > s_j of  Delta_ij * -log sigmoid(r_i - r_j),
        Delta_ij = |2^s_i - 2^s_j| * |1 / ln(1 + rank_i) - 1 / ln(1 + rank_j)|,
        r = beta * (log pi(y|x) - log pi_ref(y|x)),    rank: by r, the highest 1;  no gradient through it

    (arXiv 2402.01878, eq. 8, whose gain is 2^s - 1 and whose discount log(1 + rank): LambdaRank's weights of the
    discounted cumulative gain). s are the data's scores; the paper's lie between 0 and 1. Gains double with every unit
    of score, so scores of 1 to 10 let the best one rule. Answers of equal scores are not compared. Log-ratios that
    round to the same thousandth of a nat have ranks in the order of their scores: at the start, where all are 0 but
    for rounding, chance would rank them. Peers: Rax, with which the authors computed theirs, has logarithms to the base
    2 and weighs by the list's length besides; others divide gains by the list's ideal one, and take means over pairs.

    Units: nats per list, times the gain. At the start, when policy and reference agree, it is ln 2 times the sum of the
    weights.
    Rewards: the implicit ones, r.
    """
    import torch

    assert scored.scores_N is not None
    rewards_N = settings.beta * scored.log_ratios()
    rewards_UK, there_UK = scored.in_lists(rewards_N)
    scores_UK, _ = scored.in_lists(scored.scores_N)
    both_UKK = there_UK[:, :, None] & there_UK[:, None, :]
    rounded_N = (scored.log_ratios().detach() / RESOLVED).round()
    own_UK = scored.in_lists(rounded_N)[0].masked_fill(~there_UK, -torch.inf)
    order_UK = own_UK.argsort(dim=1, descending=True, stable=True)
    rank_UK = order_UK.argsort(dim=1, stable=True) + 1
    discount_UK = 1 / torch.log1p(rank_UK.to(rewards_UK.dtype))
    gain_UK = scores_UK.exp2()
    weights_UKK = (gain_UK[:, :, None] - gain_UK[:, None, :]) * (
        discount_UK[:, :, None] - discount_UK[:, None, :]
    ).abs()
    losses_UKK = weights_UKK * -log_sigmoid(rewards_UK[:, :, None] - rewards_UK[:, None, :])
    ordered_UKK = both_UKK & (scores_UK[:, :, None] > scores_UK[:, None, :])
    return LossOutput(losses_UKK.masked_fill(~ordered_UKK, 0).sum(dim=(1, 2)), rewards_N.detach())


LIPO_LAMBDA = Objective(
    name="lipo_lambda",
    loss=lipo_lambda,
    settings=LipoSettings,
    needs=Needs(unit="list", scores="value"),
    what="LiPO-lambda: every pair of a list, those at the top most; where scores of several answers mean something.",
    aliases=("lipo",),
)
