"""LD-DPO."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.common_settings import Pull
from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides
from tiltlm.objectives.logistic import log_sigmoid


@dataclass(frozen=True, config=SETTINGS)
class LdDpoSettings:
    """What `ld_dpo` may be given."""

    beta: Pull = 0.1
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Weight of the tokens that the longer answer has over the shorter one. 1: DPO; 0: they do not count."""


def ld_dpo(scored: Scored, settings: LdDpoSettings) -> LossOutput:
    """LD-DPO: DPO in which what the longer answer has over the shorter one counts less, so that length counts less.

        loss = -log sigmoid(beta * (d(y_w) - d(y_l))),
        d(y) = sum over t <= m of q_t  +  alpha * sum over t > m of q_t,
        q_t = log pi(y_t|x, y_<t) - log pi_ref(y_t|x, y_<t),    m = min(|y_w|, |y_l|)

    (arXiv 2409.06411, where the likelihood of the tokens after the m-th is raised to the power alpha, for the policy
    and the reference alike; alpha is 0.5 there for most models). With alpha = 1, and for answers of one length, it is
    DPO (theory.pdf, eq. 10 (dpo)). No code of the authors' is known: it is what TRL computes (`ld_alpha`, compared in
    tests/peers). Peers: some leave the reference unweighted, which gives another loss at the start. TRL's alpha is
    unset by default, which is DPO.

    Units: nats per pair. At the start, when policy and reference agree, it is ln 2.
    Rewards: beta * (log pi - log pi_ref) of whole completions, as for `sigmoid`, so that margins can be compared.
    """
    ratios_T = scored.token_log_ratios()
    shared_N = scored.tokens_N.unflatten(0, (-1, 2)).amin(dim=1).repeat_interleave(2)
    assert scored.sequence_T is not None
    assert scored.offset_T is not None
    is_shared_T = scored.offset_T < shared_N[scored.sequence_T]
    chosen_P, rejected_P = sides(scored.sums(ratios_T.where(is_shared_T, settings.alpha * ratios_T)))
    losses_P = -log_sigmoid(settings.beta * (chosen_P - rejected_P))
    return LossOutput(losses_P, settings.beta * scored.log_ratios().detach())


LD_DPO = Objective(
    name="ld_dpo",
    loss=ld_dpo,
    settings=LdDpoSettings,
    needs=Needs(tokens=True),
    what="LD-DPO: DPO that discounts what the longer answer has over the shorter; where DPO makes answers long.",
    aliases=("lddpo",),
)
