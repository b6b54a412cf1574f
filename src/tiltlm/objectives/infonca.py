"""InfoNCA and NCA of lists."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored
from tiltlm.objectives.logistic import log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, config=SETTINGS)
class NcaSettings:
    """What `infonca` and `nca` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.01
    """Strength of the pull towards the reference: reward per nat of log-ratio."""
    alpha: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the data's scores: towards 0 the best answer alone is the target, towards infinity all alike."""


def infonca(scored: Scored, settings: NcaSettings) -> LossOutput:
    """InfoNCA: which answer of a list has which score, learnt as a distribution over the list.

        loss = -sum over i of q_i * log [ exp(r_i) / sum over j of exp(r_j) ],
        q = softmax of the data's scores / alpha,    r = beta * (log pi(y|x) - log pi_ref(y|x))

    (arXiv 2402.05369, InfoNCA; alpha and beta as in the authors' code,
    https://github.com/thu-ml/Noise-Contrastive-Alignment, `reward_trainer.py`). Equal scores are equal targets. Of two
    answers, as alpha tends to 0, it is DPO. The default of alpha is ours: the authors' recipe has 1e-4 for scores of 1
    to 10, by which the best answer is the only target. Peers: their code adds 0.01 to the first answer's score.

    Units: nats per list. At the start, when policy and reference agree, it is ln K for K answers.
    Rewards: the implicit ones, r.
    """
    rewards_N = settings.beta * scored.log_ratios()
    rewards_UK, there_UK = scored.in_lists(rewards_N)
    logs_UK = rewards_UK.masked_fill(~there_UK, -math.inf).log_softmax(dim=1)
    losses_U = -(_targets(scored, settings) * logs_UK.masked_fill(~there_UK, 0)).sum(dim=1)
    return LossOutput(losses_U, rewards_N.detach())


def nca(scored: Scored, settings: NcaSettings) -> LossOutput:
    """NCA: as InfoNCA, but each answer against what the reference would say, so that likelihoods do not fall together.

        loss = -sum over i of [ q_i * log sigmoid(r_i) + 1/K * log sigmoid(-r_i) ],
        q = softmax of the data's scores / alpha,    r = beta * (log pi(y|x) - log pi_ref(y|x))

    (arXiv 2402.05369, NCA, for K answers; sums and means as in the authors' code, see `infonca`.)

    Units: nats per list. At the start, when policy and reference agree, it is 2 ln 2.
    Rewards: the implicit ones, r.
    """
    rewards_N = settings.beta * scored.log_ratios()
    rewards_UK, there_UK = scored.in_lists(rewards_N)
    shares_UK = there_UK.to(rewards_UK.dtype) / there_UK.sum(dim=1, keepdim=True)
    losses_UK = _targets(scored, settings) * log_sigmoid(rewards_UK) + shares_UK * log_sigmoid(-rewards_UK)
    return LossOutput(-losses_UK.sum(dim=1), rewards_N.detach())


def _targets(scored: Scored, settings: NcaSettings) -> Tensor:
    """The distribution over each list that its scores stand for, shape (U, K)."""
    assert scored.scores_N is not None
    scores_UK, there_UK = scored.in_lists(scored.scores_N)
    return (scores_UK / settings.alpha).masked_fill(~there_UK, -math.inf).softmax(dim=1)


INFONCA = Objective(
    name="infonca",
    loss=infonca,
    settings=NcaSettings,
    needs=Needs(unit="list", scores="value"),
    what="InfoNCA: the distribution over a list that its scores stand for; where scores say how much better.",
)
NCA = Objective(
    name="nca",
    loss=nca,
    settings=NcaSettings,
    needs=Needs(unit="list", scores="value"),
    what="NCA: as InfoNCA, and holds each answer against the reference, so that chosen answers do not become unlikely.",
)
