"""WPO."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides
from tiltlm.objectives.logistic import log_sigmoid


@dataclass(frozen=True, config=SETTINGS)
class WpoSettings:
    """What `wpo` may be given."""

    beta: Annotated[float, Field(gt=0)] = 0.01
    """Strength of the pull towards the reference: reward per nat of KL, as in DPO; the authors' value."""


def wpo(scored: Scored, settings: WpoSettings) -> LossOutput:
    """WPO: DPO in which a pair counts by how likely the policy is to have given its answers itself.

        loss = -w(x, y_w) * w(x, y_l) * log sigmoid(beta * h),
        w(x, y) = exp of the mean over y's tokens t of  log pi(y_t|x, y_<t) - log (sum over v of pi(v|x, y_<t)^2)

    (arXiv 2406.11827, section 3, with the weights of its sampled alignment; their product is detached). The sum of
    squares is the mean probability of a token that is drawn from the policy, so that answers of its own weigh 1 on
    average. As in the authors' code (https://github.com/wzhouad/WPO) the product of the two is at most 1. Peers: TRL
    does not bound it, so that pairs of very likely tokens weigh more than 1 there.

    Units: nats per pair. At the start, when policy and reference agree, it is ln 2 times the pair's weight.
    Rewards: the implicit ones, beta * (log pi - log pi_ref).
    """
    assert scored.token_logps_T is not None
    assert scored.log_squares_T is not None
    aligned_N = scored.sums(scored.token_logps_T.detach() - scored.log_squares_T) / scored.tokens_N
    chosen_P, rejected_P = sides(aligned_N)
    weights_P = (chosen_P + rejected_P).clamp(max=0).exp()
    log_ratios_N = scored.log_ratios()
    own_P, other_P = sides(log_ratios_N)
    losses_P = -weights_P * log_sigmoid(settings.beta * (own_P - other_P))
    return LossOutput(losses_P, settings.beta * log_ratios_N.detach())


WPO = Objective(
    name="wpo",
    loss=wpo,
    settings=WpoSettings,
    needs=Needs(tokens=True, squares=True),
    what="WPO: DPO that counts pairs by how likely their answers are to the policy; for answers of other models.",
    detaches=True,
)
