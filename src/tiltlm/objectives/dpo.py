"""DPO, and DPO with smoothed labels.

Notation, here and in the other families: pi is the policy, pi_ref the reference, (x, y_w, y_l) a prompt with its chosen
and rejected completion, and  h = [log pi(y_w|x) - log pi_ref(y_w|x)] - [log pi(y_l|x) - log pi_ref(y_l|x)]  the
log-ratio margin, in nats (theory.pdf, eq. 9 (margin)). The implicit reward of a completion is  r(x, y) = beta *
(log pi(y|x) - log pi_ref(y|x))  (theory.pdf, eq. 8 (implicit-reward); arXiv 2305.18290, eq. 5, without the term that
depends on x alone), so beta * h is the implicit reward margin. Why that term may go: theory.pdf, Proposition 3
(cancellation).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides
from tiltlm.objectives.logistic import log_sigmoid


@dataclass(frozen=True, config=SETTINGS)
class SigmoidSettings:
    """What `sigmoid` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the pull towards the reference: reward per nat of KL (theory.pdf, eq. 1 (objective))."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Assumed share of flipped labels (conservative DPO), below 0.5."""


def sigmoid(scored: Scored, settings: SigmoidSettings) -> LossOutput:
    """DPO: the negative log-likelihood of the preferences under Bradley-Terry.

        loss = -log sigmoid(beta * h)

    (theory.pdf, eq. 10 (dpo); arXiv 2305.18290, eq. 7). Its gradient weighs a pair by the probability that the implicit
    reward gives to the other label (theory.pdf, eq. 12 (gradient)).

    With label smoothing e, the share of labels taken to be flipped (conservative DPO, theory.pdf, eq. 18
    (smoothed); E. Mitchell, https://ericmitchell.ai/cdpo.pdf, eq. 3):

        loss = -(1 - e) * log sigmoid(beta * h) - e * log sigmoid(-beta * h)

    Units: nats per pair. At the start, when policy and reference agree, it is ln 2 whatever e is.
    Rewards: the implicit ones, beta * (log pi - log pi_ref).
    """
    log_ratios_N = scored.log_ratios()
    chosen_P, rejected_P = sides(log_ratios_N)
    logits_P = settings.beta * (chosen_P - rejected_P)
    e = settings.label_smoothing
    losses_P = -(1 - e) * log_sigmoid(logits_P) - e * log_sigmoid(-logits_P)
    return LossOutput(losses_P, settings.beta * log_ratios_N.detach())


SIGMOID = Objective(
    name="sigmoid",
    loss=sigmoid,
    settings=SigmoidSettings,
    needs=Needs(),
    what="DPO: raises the odds of the chosen answer over the rejected one, against the reference; the first to try.",
    aliases=("dpo", "cdpo", "logistic"),
)
