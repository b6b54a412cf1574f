"""Alignment by optimal transport: distributions of rewards are compared, not pairs one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass

from tiltlm.objectives.common_settings import Pull
from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides
from tiltlm.objectives.logistic import log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, config=SETTINGS)
class AotSettings:
    """What `aot` and `aot_unpaired` may be given."""

    beta: Pull = 0.01


def aot(scored: Scored, settings: AotSettings) -> LossOutput:
    """AOT on pairs: the policy's margins, as a distribution, are to lie above the reference's at every quantile.

        loss = -log sigmoid(beta * (m_(i) - n_(i))),
        m = log pi(y_w|x) - log pi(y_l|x),    n = log pi_ref(y_w|x) - log pi_ref(y_l|x)

    (arXiv 2406.05882, its paired form with the logistic loss), m_(i) being the i-th smallest of the batch's margins. A
    pair's loss is that of the rank which its margin has. The batch is the whole one of a step, however it is computed.
    Peers: TRL sorts each micro-batch by itself, so that another micro-batch is another loss; its beta is 0.1 by
    default, the paper's is 0.01; and it takes a label_smoothing, which is not in the paper.

    Units: nats per pair. At the start, when policy and reference agree, it is ln 2.
    Rewards: the implicit ones, beta * (log pi - log pi_ref).
    """
    assert scored.reference_logps_N is not None
    chosen_P, rejected_P = sides(scored.logps_N)
    reference_chosen_P, reference_rejected_P = sides(scored.reference_logps_N)
    margins_P = chosen_P - rejected_P
    losses_P = -log_sigmoid(
        settings.beta * (margins_P - at_ranks_of(margins_P, reference_chosen_P - reference_rejected_P))
    )
    return LossOutput(losses_P, settings.beta * scored.log_ratios().detach())


def aot_unpaired(scored: Scored, settings: AotSettings) -> LossOutput:
    """AOT without pairs: rewards of chosen answers, as a distribution, are to lie above those of rejected ones.

        loss = -log sigmoid(beta * (w_(i) - l_(i)))

    (arXiv 2406.05882, its unpaired form with the logistic loss), w_(i) and l_(i) being the i-th smallest log-ratio log
    pi - log pi_ref of the batch's chosen and rejected answers. A pair's loss is that of the rank which its chosen
    answer has. The batch is the whole one of a step, however it is computed. Peers: as for `aot`.

    Units: nats per pair. At the start, when policy and reference agree, it is ln 2.
    Rewards: the implicit ones, beta * (log pi - log pi_ref).
    """
    log_ratios_N = scored.log_ratios()
    chosen_P, rejected_P = sides(log_ratios_N)
    losses_P = -log_sigmoid(settings.beta * (chosen_P - at_ranks_of(chosen_P, rejected_P)))
    return LossOutput(losses_P, settings.beta * log_ratios_N.detach())


def at_ranks_of(values: Tensor, others: Tensor) -> Tensor:
    """Of each value, the one among `others` that has its rank; equal values keep their order. Shapes (P,)."""
    ranks = values.argsort(stable=True).argsort()
    return others.sort(stable=True).values[ranks]


AOT = Objective(
    name="aot",
    loss=aot,
    settings=AotSettings,
    needs=Needs(coupled=True),
    what="AOT: lifts the distribution of margins above the reference's, rank by rank; for noisy pairs, large batches.",
)

AOT_UNPAIRED = Objective(
    name="aot_unpaired",
    loss=aot_unpaired,
    settings=AotSettings,
    needs=Needs(coupled=True),
    what="AOT unpaired: lifts the rewards of chosen answers above those of rejected ones, rank by rank; ignores pairs.",
)
