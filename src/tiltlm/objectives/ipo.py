"""IPO."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides


@dataclass(frozen=True, config=SETTINGS)
class IpoSettings:
    """What `ipo` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the pull towards the reference: the margin's target is 1/(2 beta), per token
    (theory.pdf, eq. 19 (ipo))."""


def ipo(scored: Scored, settings: IpoSettings) -> LossOutput:
    """IPO: squared distance of the log-ratio margin to its target.

        loss = (h_mean - 1 / (2 * beta))^2

    (theory.pdf, eq. 19 (ipo); arXiv 2310.12036, eq. 17, tau = beta). What it is for: theory.pdf, Proposition 9
    (deterministic).

    The log-ratios in h_mean are averaged over each completion's own tokens, as the authors do, so that long
    completions do not reach the target by length alone (huggingface/trl#1677).

    Units: nats^2 per pair. At the start it is 1 / (4 * beta^2).
    Rewards: beta * (log pi - log pi_ref) of whole completions, as for `sigmoid`.
    """
    log_ratios_N = scored.log_ratios()
    chosen_P, rejected_P = sides(log_ratios_N / scored.tokens_N)
    losses_P = (chosen_P - rejected_P - 1 / (2 * settings.beta)).square()
    return LossOutput(losses_P, settings.beta * log_ratios_N.detach())


IPO = Objective(
    name="ipo",
    loss=ipo,
    settings=IpoSettings,
    needs=Needs(counts=True),
    what="IPO: draws the margin per token to 1/(2 beta), no further; for labels without noise, where DPO never rests.",
)
