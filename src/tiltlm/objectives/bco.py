"""BCO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import (
    CHOSEN,
    REJECTED,
    SETTINGS,
    LossOutput,
    Needs,
    Objective,
    Running,
    Scored,
)
from tiltlm.objectives.logistic import log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, config=SETTINGS)
class BcoSettings:
    """What `bco` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.01
    """Strength of the pull towards the reference: reward per nat of log-ratio."""


def bco(scored: Scored, settings: BcoSettings) -> LossOutput:
    """BCO: a classifier that tells good answers from bad ones, whose logit is the implicit reward less its middle.

        loss = -log sigmoid(r - delta)    of a desirable (chosen) answer,
        loss = -log sigmoid(delta - r)    of an undesirable (rejected) one,
        r = beta * (log pi(y|x) - log pi_ref(y|x)),
        delta = (mean of r over desirable answers + mean of r over undesirable ones) / 2, no gradient

    (arXiv 2404.04656, eqs. 7 and 8). The means are over all answers so far and move once a step, on all of its batch
    and before its loss; of a kind that has not been seen the other's is taken. The paper smooths delta by an
    exponential moving average of a rate that it does not give. Every answer counts alike, where eq. 8 adds the means of
    the two kinds, which the authors balance by repeating the rarer one. The weights of `underlying distribution
    matching`, for good and bad answers whose prompts are of different kinds, need a model of embeddings and are not
    here. Peers: TRL's BCOTrainer, as long as it had one, took the mean over all answers so far for delta, which is the
    same where there are as many good ones as bad ones; TRL's `bco_pair` has delta = 0. The paper's beta is 0.01 in its
    first version, as TRL's documentation quotes it, and 0.1 in that of ACL 2025.

    Units: nats per completion. At the start, when policy and reference agree, it is ln 2.
    Rewards: the implicit ones, r, without delta.
    """
    rewards_N = settings.beta * scored.log_ratios()
    above_N = rewards_N - scored.running["delta"]
    return LossOutput(-log_sigmoid(above_N.where(scored.labels_N == CHOSEN, -above_N)), rewards_N.detach())


def _start(settings: object) -> Mapping[str, float]:
    """Before any answer was seen."""
    return dict.fromkeys(("delta", "desirable", "desirables", "undesirable", "undesirables"), 0.0)


def _moved(scored: Scored, settings: BcoSettings) -> Mapping[str, Tensor]:
    """delta; and of either kind the mean reward and the number of answers that it is of, with this batch's."""
    rewards_N = settings.beta * scored.log_ratios().detach()
    desirable, desirables = _mean_with(scored, rewards_N, "desirable", CHOSEN)
    undesirable, undesirables = _mean_with(scored, rewards_N, "undesirable", REJECTED)
    # The mean of a kind that has not been seen is 0, and does not count.
    kinds = (desirables > 0).to(rewards_N.dtype) + (undesirables > 0)
    return {
        "delta": (desirable + undesirable) / kinds.clamp(min=1),
        "desirable": desirable,
        "desirables": desirables,
        "undesirable": undesirable,
        "undesirables": undesirables,
    }


def _mean_with(scored: Scored, rewards_N: Tensor, kind: str, label: int) -> tuple[Tensor, Tensor]:
    """The mean reward of the answers of a kind so far and their number, with those of this batch."""
    is_own_N = scored.labels_N == label
    mean, count = scored.running[kind], scored.running[f"{kind}s"] + is_own_N.sum()
    return mean + (rewards_N - mean).masked_fill(~is_own_N, 0).sum() / count.clamp(min=1), count


BCO = Objective(
    name="bco",
    loss=bco,
    settings=BcoSettings,
    needs=Needs(unit="completion", coupled=True),
    what="BCO: tells answers labelled good from those labelled bad, as a classifier would; where there are no pairs.",
    running=Running(start=_start, moved=_moved),
)
