"""DPO that does not let the chosen answer sink."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.common_settings import Pull
from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides
from tiltlm.objectives.logistic import log_sigmoid


@dataclass(frozen=True, config=SETTINGS)
class DpopSettings:
    """What `dpop` may be given."""

    beta: Pull = 0.3
    penalty: Annotated[float, Field(ge=0)] = 50.0
    """How many nats of margin a nat costs that the chosen answer lost: the paper's lambda, which tries 5 to 500."""


def dpop(scored: Scored, settings: DpopSettings) -> LossOutput:
    """DPO-Positive: DPO, less a penalty where the chosen answer has become less likely than under the reference.

        loss = -log sigmoid(beta * (h - lambda * max(0, log pi_ref(y_w|x) - log pi(y_w|x))))

    (arXiv 2402.13228, eq. 3), lambda being `penalty`, inside of beta. Where the chosen answer gained, it is DPO; where
    policy and reference agree the gradient is DPO's too. The authors published no code: the equation is as `dpop` of
    https://github.com/turbo-llm/turbo-alignment has it, which takes the penalty off the reported rewards too.

    Units: nats per pair. At the start, when policy and reference agree, it is ln 2.
    Rewards: the implicit ones, beta * (log pi - log pi_ref), without the penalty.
    """
    log_ratios_N = scored.log_ratios()
    chosen_P, rejected_P = sides(log_ratios_N)
    margins_P = chosen_P - rejected_P - settings.penalty * (-chosen_P).relu()
    return LossOutput(-log_sigmoid(settings.beta * margins_P), settings.beta * log_ratios_N.detach())


DPOP = Objective(
    name="dpop",
    loss=dpop,
    settings=DpopSettings,
    needs=Needs(),
    what="DPO-Positive: DPO that punishes a chosen answer's loss of likelihood; where answers differ in few tokens.",
    aliases=("dpo_positive", "smaug"),
)


@dataclass(frozen=True, config=SETTINGS)
class CalDpoSettings:
    """What `cal_dpo` may be given."""

    beta: Annotated[float, Field(gt=0)] = 1e-3
    """Sets where log-ratios are drawn to: 1/(2 beta) nats, the chosen one's above 0 and the rejected one's below."""
    calibration_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the two squares beside the comparison: 1 in the paper, 0.5 in its code."""


def cal_dpo(scored: Scored, settings: CalDpoSettings) -> LossOutput:
    """Cal-DPO: a comparison of log-ratios, each of which is calibrated to a target of its own.

        loss = -log sigmoid(h) + c * [(q_w - 1 / (2 * beta))^2 + (q_l + 1 / (2 * beta))^2],
        q = log pi(y|x) - log pi_ref(y|x)

    (arXiv 2412.14516, eq. 10), c being `calibration_weight`. There is no beta in the comparison. c is 1 in the paper,
    while the authors' code (https://github.com/tengxiao1/Cal-DPO) has 0.5; the paper's is the default here.

    Units: nats and nats^2, per pair. At the start, when policy and reference agree, it is ln 2 + c / (2 * beta^2).
    Rewards: beta * (log pi - log pi_ref), as for `sigmoid`; 1/2 and -1/2 where calibrated.
    """
    log_ratios_N = scored.log_ratios()
    chosen_P, rejected_P = sides(log_ratios_N)
    target = 1 / (2 * settings.beta)
    squares_P = (chosen_P - target).square() + (rejected_P + target).square()
    losses_P = settings.calibration_weight * squares_P - log_sigmoid(chosen_P - rejected_P)
    return LossOutput(losses_P, settings.beta * log_ratios_N.detach())


CAL_DPO = Objective(
    name="cal_dpo",
    loss=cal_dpo,
    settings=CalDpoSettings,
    needs=Needs(),
    what="Cal-DPO: draws each answer's log-ratio to a target besides comparing them; where chosen likelihood sinks.",
)
