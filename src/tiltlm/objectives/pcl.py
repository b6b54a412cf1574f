"""Path consistency, token by token."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored


@dataclass(frozen=True, config=SETTINGS)
class PclSettings:
    """What `pcl` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Score per nat of log-ratio: a token with credit A is to become exp(A / beta) times as likely. An answer's credit
    comes to about twice what its score was above the expected one, so 0.2 here aims as far as 0.1 of `rebel`."""


def pcl(scored: Scored, settings: PclSettings) -> LossOutput:
    """Path consistency: each token's log-ratio is to be what the token did for its answer's score.

        loss = mean over the list's answers of the sum over t of (beta * log(pi / pi_ref)(y_t | x, y_<t) - A_t)^2,
        A_t: by how much y_t raised the score that the answer was to have, the credit (`training.credit`)

    (consistency of single steps of Trust-PCL, arXiv 1707.01891, with relative entropy alone and a reward at the end:
    beta * log-ratio = V(s_{t+1}) - V(s_t). Values are not learnt beside the policy, but found before training.) The
    log-ratios of the tilted reference are such differences, of V = beta * log E exp(r / beta); those of mean scores,
    which credit is made of, are the same to first order in 1 / beta, were they exact. As they are not, a token's credit
    takes in a part of what followed, by which an answer's credit adds up to about twice the differences
    (`training.credit.credit`). A whole answer's score says the same of all its tokens; credit says which of them it
    was, so that less of what is learnt is noise.

    Units: score^2 per list. At the start, when policy and reference agree, it is the mean over answers of the sum of
    their tokens' squared credit.
    Rewards: the implicit ones, beta * log-ratio of the whole answer.
    """
    assert scored.credit_T is not None
    squares_T = (settings.beta * scored.token_log_ratios() - scored.credit_T).square()
    own_UK, there_UK = scored.in_lists(scored.sums(squares_T))
    return LossOutput(own_UK.sum(dim=1) / there_UK.sum(dim=1), settings.beta * scored.log_ratios().detach())


PCL = Objective(
    name="pcl",
    loss=pcl,
    settings=PclSettings,
    needs=Needs(unit="list", tokens=True, scores="value", credit=True),
    what="Path consistency: each token is learnt by what it did for the score; for rounds of a model's own answers.",
    aliases=("trust_pcl",),
)
