"""REBEL."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored


@dataclass(frozen=True, config=SETTINGS)
class RebelSettings:
    """What `rebel` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Score per nat of log-ratio: an answer that scores s more is to become exp(s / beta) times as likely beside the
    other."""


def rebel(scored: Scored, settings: RebelSettings) -> LossOutput:
    """REBEL: how far apart two answers' implicit rewards are is to be how far apart their scores are.

        loss = mean over pairs i, j of the list of ((r_i - r_j) - (s_i - s_j))^2,
        r = beta * (log pi(y|x) - log pi_ref(y|x)),    s: the data's scores

    (arXiv 2404.16767, Algorithm 1, with 1 / eta = beta and the reference as the policy before; the paper has two
    answers a prompt. The authors' code, https://github.com/ZhaolinGao/REBEL, has the loss in nats^2: ours / beta^2.)
    Its least value is at the tilted reference, pi_ref exp(s / beta), whoever drew the answers: the target is finite
    where scores are, also where one answer always wins, and equal scores are a target too.

    Units: score^2 per list. At the start, when policy and reference agree, it is the mean squared distance of two
    scores.
    Rewards: the implicit ones, r.
    """
    assert scored.scores_N is not None
    rewards_N = settings.beta * scored.log_ratios()
    # All pairs of a list at once: their mean squared distance is 2 K / (K - 1) times the variance of what is left.
    left_UK, there_UK = scored.in_lists(rewards_N - scored.scores_N.to(rewards_N.dtype))
    count_U = there_UK.sum(dim=1)
    mean_U1 = left_UK.sum(dim=1, keepdim=True) / count_U[:, None]
    squares_U = (left_UK - mean_U1).masked_fill(~there_UK, 0).square().sum(dim=1)
    return LossOutput(2 * squares_U / (count_U - 1), rewards_N.detach())


REBEL = Objective(
    name="rebel",
    loss=rebel,
    settings=RebelSettings,
    needs=Needs(unit="list", scores="value"),
    what="REBEL: log-ratios are to differ as the scores do; where a score says how much better, also without noise.",
)
