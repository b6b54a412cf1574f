"""Beta-DPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Running, Scored, sides
from tiltlm.objectives.logistic import log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-3
"""Below this the authors' code does not let a batch's beta fall."""
KEPT = 0.9
"""Of the moving mean of margins, what a step keeps; the rest is its batch's mean."""


@dataclass(frozen=True, config=SETTINGS)
class BetaDpoSettings:
    """What `beta_dpo` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the pull towards the reference, of a batch whose margin is what it was on average."""
    alpha: Annotated[float, Field(ge=0)] = 0.6
    """How much beta follows a batch's mean margin, per nat. 0: DPO."""


def beta_dpo(scored: Scored, settings: BetaDpoSettings) -> LossOutput:
    """Beta-DPO: DPO with a beta that is larger for batches whose pairs are told apart more clearly than so far.

        loss = -log sigmoid(beta_b * h),    beta_b = max(1e-3, beta * (1 + alpha * (mean of h - M))),
        M = 0.9 * (M of the step before) + 0.1 * (mean of h),  0 before the first step;  no gradient through either

    (arXiv 2407.08639; the floor, the start, and that M has seen the batch are those of the authors' code,
    https://github.com/junkangwu/beta-DPO, with alpha as its README gives it). The mean is
    over the whole global batch. Held-out pairs have the last training step's beta_b. The paper's second part, which
    leaves out a fifth of each batch, drawn at random by how unusual a pair's margin is, is not here: a loss is a
    function of what it is given, and which pairs were drawn would depend on how they are laid out. All pairs count.

    Units: nats per pair. At the start, when policy and reference agree, it is ln 2.
    Rewards: beta * (log pi - log pi_ref), as for `sigmoid`, with the beta of the settings.
    """
    log_ratios_N = scored.log_ratios()
    chosen_P, rejected_P = sides(log_ratios_N)
    losses_P = -log_sigmoid(scored.running["beta"] * (chosen_P - rejected_P))
    return LossOutput(losses_P, settings.beta * log_ratios_N.detach())


def _moved(scored: Scored, settings: BetaDpoSettings) -> Mapping[str, Tensor]:
    """The moving mean of margins, in nats, and the beta of this batch."""
    chosen_P, rejected_P = sides(scored.log_ratios().detach())
    of_batch = (chosen_P - rejected_P).mean()
    margin = KEPT * scored.running["margin"] + (1 - KEPT) * of_batch
    beta = settings.beta * (1 + settings.alpha * (of_batch - margin))
    return {"margin": margin, "beta": beta.clamp(min=SMALLEST)}


BETA_DPO = Objective(
    name="beta_dpo",
    loss=beta_dpo,
    settings=BetaDpoSettings,
    needs=Needs(coupled=True),
    what="Beta-DPO: DPO with a beta that follows each batch's margin; where pairs are told apart to different degrees.",
    running=Running(start=lambda settings: {"margin": 0.0, "beta": settings.beta}, moved=_moved),
)
