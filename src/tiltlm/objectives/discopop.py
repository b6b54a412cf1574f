"""DiscoPOP."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.common_settings import Pull
from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides
from tiltlm.objectives.logistic import log_sigmoid


@dataclass(frozen=True, config=SETTINGS)
class DiscopopSettings:
    """What `discopop` may be given."""

    beta: Pull = 0.05
    tau: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Over how wide a range of beta * h one loss passes into the other. At most 1: beyond, the loss is not finite."""


def discopop(scored: Scored, settings: DiscopopSettings) -> LossOutput:
    """DiscoPOP (the log-ratio modulated loss): DPO's loss for margins below 0, an exponential one above.

        loss = (1 - m) * -log sigmoid(x) + m * exp(-x),    m = sigmoid(x / tau),    x = beta * h

    (arXiv 2406.08414, eq. 5, and `log_ratio_modulated_loss` of the authors' code,
    https://github.com/luchris429/DiscoPOP; found by a language model's search, not derived). m is part of what is
    learnt, not a weight, so the loss is not convex: near x = 0 it falls towards smaller margins where tau is below (1 -
    ln 2) / 3, about 0.10, as with both defaults, and a pair may come to rest below 0 (near x = -0.1 with tau = 0.05).
    m * exp(-x) is computed as exp(log m - x), as exp(-x) alone overflows where m is 0. Peers: TRL's beta is 0.1 by
    default, and its loss is NaN where exp(-x) is infinite.

    Units: none, per pair. At the start, when policy and reference agree, it is (1 + ln 2) / 2.
    Rewards: the implicit ones, beta * (log pi - log pi_ref).
    """
    log_ratios_N = scored.log_ratios()
    chosen_P, rejected_P = sides(log_ratios_N)
    logits_P = settings.beta * (chosen_P - rejected_P)
    sharp_P = logits_P / settings.tau
    losses_P = (log_sigmoid(sharp_P) - logits_P).exp() - (-sharp_P).sigmoid() * log_sigmoid(logits_P)
    return LossOutput(losses_P, settings.beta * log_ratios_N.detach())


DISCOPOP = Objective(
    name="discopop",
    loss=discopop,
    settings=DiscopopSettings,
    needs=Needs(),
    what="DiscoPOP: a blend of the logistic and the exponential loss, found by search; to compare with DPO.",
    aliases=("lrml",),
)
