"""SPPO with certain labels."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from tiltlm.objectives.common_settings import Pull
from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides


@dataclass(frozen=True, config=SETTINGS)
class SppoHardSettings:
    """What `sppo_hard` may be given."""

    beta: Pull = 1e-3


def sppo_hard(scored: Scored, settings: SppoHardSettings) -> LossOutput:
    """SPPO with hard labels: each log-ratio drawn to a target, the chosen one's above 0, the rejected one's below.

        loss = 1/2 * [(q_w - 1 / (2 * beta))^2 + (q_l + 1 / (2 * beta))^2],    q = log pi(y|x) - log pi_ref(y|x)

    (arXiv 2405.00675, eq. 4.7, the mean over a pair's answers of [q - eta * (p - 1/2)]^2, where eta = 1 / beta and the
    probability p of winning is taken to be 1 and 0; halved as in `sppo_loss` of the authors' code,
    https://github.com/uclaml/SPPO, which reads p from columns of the data). Peers: TRL does not halve the sum, so its
    loss and gradient are twice these; its beta is 0.1 by default, the paper's is 1e-3.

    Units: nats^2 per pair. At the start, when policy and reference agree, it is 1 / (4 * beta^2).
    Rewards: the implicit ones, beta * (log pi - log pi_ref).
    """
    log_ratios_N = scored.log_ratios()
    chosen_P, rejected_P = sides(log_ratios_N)
    target = 1 / (2 * settings.beta)
    losses_P = ((chosen_P - target).square() + (rejected_P + target).square()) / 2
    return LossOutput(losses_P, settings.beta * log_ratios_N.detach())


SPPO_HARD = Objective(
    name="sppo_hard",
    loss=sppo_hard,
    settings=SppoHardSettings,
    needs=Needs(),
    what="SPPO: draws each answer's log-ratio to a target of its own; for rounds of self-play on the model's answers.",
)
