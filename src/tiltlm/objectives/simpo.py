"""SimPO."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides
from tiltlm.objectives.logistic import log_sigmoid


@dataclass(frozen=True, config=SETTINGS)
class SimpoSettings:
    """What `simpo` may be given."""

    beta: Annotated[float, Field(gt=0)] = 2.0
    """Reward per nat of log-probability per token. There is no reference to be pulled to; the authors use 2 to 10."""
    gamma_beta_ratio: Annotated[float, Field(ge=0)] = 0.25
    """Margin that the chosen answer is asked to have, in nats per token: gamma / beta. The authors search in 0 to 1."""


def simpo(scored: Scored, settings: SimpoSettings) -> LossOutput:
    """SimPO: the chosen answer likelier per token than the rejected one, by a margin, with no reference.

        loss = -log sigmoid(beta * (log pi(y_w|x) / |y_w| - log pi(y_l|x) / |y_l|) - gamma)

    (arXiv 2405.14734, eq. 6), |y| being a completion's number of tokens and gamma = gamma_beta_ratio * beta, as in the
    authors' code, whose defaults these are. Peers: TRL takes gamma itself (default 0.5, as here) beside a beta of 0.1,
    and adds a likelihood term unless `cpo_alpha` is 0.

    Units: nats per pair. At the start it has no value of its own, since nothing stands for zero; where both answers
    are equally likely per token it is log(1 + exp(gamma)).
    Rewards: beta * log pi / |y|, per token and without a reference.
    """
    means_N = scored.logps_N / scored.tokens_N
    chosen_P, rejected_P = sides(means_N)
    losses_P = -log_sigmoid(settings.beta * (chosen_P - rejected_P - settings.gamma_beta_ratio))
    return LossOutput(losses_P, settings.beta * means_N.detach())


SIMPO = Objective(
    name="simpo",
    loss=simpo,
    settings=SimpoSettings,
    needs=Needs(reference=False, counts=True),
    what="SimPO: compares answers by their likelihood per token, without a reference; cheaper, and drifts more freely.",
)
