"""KTO."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import CHOSEN, MISMATCHED, SETTINGS, LossOutput, Needs, Objective, Scored


@dataclass(frozen=True, config=SETTINGS)
class KtoSettings:
    """What `kto` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Reward per nat of log-ratio: how soon a gain or a loss stops to matter."""
    desirable_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of desirable answers' losses. The authors keep (this weight * their number) over (the other * the others'
    number) between 1 and 4/3."""
    undesirable_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of undesirable answers' losses."""


def kto(scored: Scored, settings: KtoSettings) -> LossOutput:
    """KTO: each answer judged alone, as a gain or a loss against what the policy has come to on average.

        loss = lambda_D * (1 - sigmoid(beta * (q - z)))    of a desirable (chosen) answer,
        loss = lambda_U * (1 - sigmoid(beta * (z - q)))    of an undesirable (rejected) one,
        q = log pi(y|x) - log pi_ref(y|x),    z = max(0, mean of q over the mismatched answers)

    (arXiv 2402.01306, eq. 8). A mismatched answer is one to another prompt; z estimates how far the policy is from the
    reference, is the same for the whole batch and has no gradient. beta stands outside z: z is in nats, as q is.
    Peers: TRL takes z over one micro-batch of each rank and averages over ranks before it cuts at 0; the authors' code
    divides the sum by the number of log-ratios that are not exactly 0; here it is the mean of the whole batch.

    Units: none; between 0 and the weight, per completion. At the start, when policy and reference agree, it is half the
    weight. Rewards: the implicit ones, beta * (log pi - log pi_ref), of mismatched answers too.
    """
    log_ratios_N = scored.log_ratios()
    is_mismatched_N = scored.labels_N == MISMATCHED
    mismatched = log_ratios_N.detach()[is_mismatched_N]
    assert len(mismatched) > 0
    z = mismatched.mean().clamp(min=0)
    above_U = log_ratios_N[~is_mismatched_N] - z
    is_desirable_U = scored.labels_N[~is_mismatched_N] == CHOSEN
    # 1 - sigmoid(x) is sigmoid(-x), which does not cancel where it is small.
    regretted_U = settings.desirable_weight * (-settings.beta * above_U).sigmoid()
    losses_U = regretted_U.where(is_desirable_U, settings.undesirable_weight * (settings.beta * above_U).sigmoid())
    return LossOutput(losses_U, settings.beta * log_ratios_N.detach())


KTO = Objective(
    name="kto",
    loss=kto,
    settings=KtoSettings,
    needs=Needs(unit="completion", coupled=True, mismatched=True),
    what="KTO: learns from answers that are labelled good or bad one by one; where there are no pairs.",
)
