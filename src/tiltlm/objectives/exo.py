"""EXO on pairs."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.common_settings import Pull
from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides
from tiltlm.objectives.logistic import log_sigmoid


@dataclass(frozen=True, config=SETTINGS)
class ExoPairSettings:
    """What `exo_pair` may be given."""

    beta: Pull = 0.1
    label_smoothing: Annotated[float, Field(gt=0, lt=0.5)] = 1e-3
    """Share of flipped labels that the preference is taken to have. Not 0: the loss would be infinite."""


def exo_pair(scored: Scored, settings: ExoPairSettings) -> LossOutput:
    """EXO: the reverse KL from what the policy prefers to what the label says, where DPO takes the forward one.

        loss = q * log(q / (1 - e)) + (1 - q) * log((1 - q) / e),    q = sigmoid(beta * h)

    (arXiv 2402.00856, eq. 16), e being `label_smoothing`. q is part of what is learnt, not a weight. The loss is 0
    where q = 1 - e, at a margin of log((1 - e) / e) / beta nats, and grows again beyond. Peers: the authors' code
    (https://github.com/haozheji/exact-optimization, `exact_loss`) has 0 for log(1 - e) and -10 for log e, a label that
    does not sum to 1; TRL's label_smoothing is 0 by default, which it refuses here and asks for 1e-3, the default here.

    Units: nats per pair. At the start, when policy and reference agree, it is -ln 2 - log(e * (1 - e)) / 2.
    Rewards: the implicit ones, beta * (log pi - log pi_ref).
    """
    log_ratios_N = scored.log_ratios()
    chosen_P, rejected_P = sides(log_ratios_N)
    logits_P = settings.beta * (chosen_P - rejected_P)
    e = settings.label_smoothing
    losses_P = logits_P.sigmoid() * (log_sigmoid(logits_P) - math.log1p(-e))
    losses_P = losses_P + (-logits_P).sigmoid() * (log_sigmoid(-logits_P) - math.log(e))
    return LossOutput(losses_P, settings.beta * log_ratios_N.detach())


EXO_PAIR = Objective(
    name="exo_pair",
    loss=exo_pair,
    settings=ExoPairSettings,
    needs=Needs(),
    what="EXO: matches the label's odds in the reverse KL and rests at a finite margin; where DPO's margins run away.",
    aliases=("exo",),
)
