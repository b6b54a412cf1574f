"""BCO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import CHOSEN, MISMATCHED, SETTINGS, LossOutput, Needs, Objective, Running, Scored
from tiltlm.objectives.logistic import log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, config=SETTINGS)
class BcoSettings:
    """What `bco` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.01
    """Strength of the pull towards the reference: reward per nat of log-ratio."""


def bco(scored: Scored, settings: BcoSettings) -> LossOutput:
    """BCO: a classifier that tells good answers from bad ones, whose logit is the implicit reward less its mean.

        loss = -log sigmoid(r - delta)    of a desirable (chosen) answer,
        loss = -log sigmoid(delta - r)    of an undesirable (rejected) one,
        r = beta * (log pi(y|x) - log pi_ref(y|x)),    delta: mean of r over all answers so far, no gradient

    (arXiv 2404.04656). delta moves once a step, on all of its batch and before its loss. It is that of the authors'
    code in TRL; where there are as many good answers as bad ones it lies midway between their means, which is what
    the paper shifts rewards by. The weights of `underlying distribution matching`, for good and bad answers whose
    prompts are of different kinds, need a model of embeddings and are not here. Peers: TRL's `bco_pair` has delta = 0.

    Units: nats per completion. At the start, when policy and reference agree, it is ln 2.
    Rewards: the implicit ones, r, without delta.
    """
    rewards_N = settings.beta * scored.log_ratios()
    is_labelled_N = scored.labels_N != MISMATCHED
    above_U = rewards_N[is_labelled_N] - scored.running["reward"]
    is_desirable_U = scored.labels_N[is_labelled_N] == CHOSEN
    return LossOutput(-log_sigmoid(above_U.where(is_desirable_U, -above_U)), rewards_N.detach())


def _moved(scored: Scored, settings: BcoSettings) -> Mapping[str, Tensor]:
    """The mean reward and the number of answers that it is of, with this batch's."""
    rewards_U = settings.beta * scored.log_ratios().detach()[scored.labels_N != MISMATCHED]
    mean, count = scored.running["reward"], scored.running["answers"]
    together = count + len(rewards_U)
    return {"reward": mean + (rewards_U.mean() - mean) * (len(rewards_U) / together), "answers": together}


BCO = Objective(
    name="bco",
    loss=bco,
    settings=BcoSettings,
    needs=Needs(unit="completion", coupled=True),
    what="BCO: tells answers labelled good from those labelled bad, as a classifier would; where there are no pairs.",
    running=Running(start=lambda settings: {"reward": 0.0, "answers": 0.0}, moved=_moved),
)
