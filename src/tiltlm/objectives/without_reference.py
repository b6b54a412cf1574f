"""Comparisons of likelihoods without a reference, held in place by imitation of the chosen answer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.common_settings import NllWeight
from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides
from tiltlm.objectives.logistic import log_one_less_exp, log_sigmoid


@dataclass(frozen=True, config=SETTINGS)
class CpoSettings:
    """What `cpo` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Reward per nat of log-probability; there is no reference to be pulled to."""
    nll_weight: NllWeight = 1.0


def cpo(scored: Scored, settings: CpoSettings) -> LossOutput:
    """CPO: DPO with a uniform reference, that is with none, and imitation of the chosen answer.

        loss = -log sigmoid(beta * (log pi(y_w|x) - log pi(y_l|x))) - lambda * log pi(y_w|x)

    (arXiv 2401.08417, its preference and its likelihood loss), lambda being `nll_weight`. Peers: TRL has the mean over
    the tokens of the batch in place of the second log-likelihood, which is some hundred times smaller.

    Units: nats per pair. At the start it has no value of its own, since nothing stands for zero; where both answers are
    equally likely it is ln 2 - lambda * log pi(y_w|x).
    Rewards: beta * log pi, without a reference.
    """
    rewards_N = settings.beta * scored.logps_N
    chosen_P, rejected_P = sides(rewards_N)
    losses_P = -log_sigmoid(chosen_P - rejected_P) - settings.nll_weight * sides(scored.logps_N)[0]
    return LossOutput(losses_P, rewards_N.detach())


CPO = Objective(
    name="cpo",
    loss=cpo,
    settings=CpoSettings,
    needs=Needs(reference=False),
    what="CPO: compares likelihoods without a reference and imitates the chosen answer; made for translation.",
)


@dataclass(frozen=True, config=SETTINGS)
class OrpoSettings:
    """What `orpo` may be given."""

    odds_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the comparison beside the imitation: the paper's lambda, which TRL calls beta."""


def orpo(scored: Scored, settings: OrpoSettings) -> LossOutput:
    """ORPO: imitation of the chosen answer and a comparison of odds in one stage, without a reference.

        loss = -a_w - lambda * log sigmoid(log(odds_w / odds_l)),    odds = exp(a) / (1 - exp(a)),
        a = log pi(y|x) / |y|

    (arXiv 2403.07691, eqs. 4 to 7), lambda being `odds_weight`. log(1 - exp(a)) is computed through expm1 and goes on
    as its tangent where a is above -1e-6, an answer that is certain but for a millionth a token, so that nothing is
    infinite. Peers: the authors' first term is over the prompt's tokens too, while here and in TRL completions are what
    is learnt; TRL's first term is the mean over the tokens of the batch, here it is each answer's own.

    Units: nats per token, per pair. At the start it has no value of its own, since nothing stands for zero; where both
    answers are equally likely per token it is -a_w + lambda * ln 2.
    Rewards: log pi / |y|, per token and without a reference.
    """
    means_N = scored.logps_N / scored.tokens_N
    chosen_P, rejected_P = sides(means_N)
    log_odds_P = chosen_P - rejected_P - log_one_less_exp(chosen_P) + log_one_less_exp(rejected_P)
    return LossOutput(-chosen_P - settings.odds_weight * log_sigmoid(log_odds_P), means_N.detach())


ORPO = Objective(
    name="orpo",
    loss=orpo,
    settings=OrpoSettings,
    needs=Needs(reference=False, counts=True),
    what="ORPO: imitation and preference in one stage, without a reference; for a base model that has seen no SFT.",
)
