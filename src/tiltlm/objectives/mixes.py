"""DPO mixed with imitation of the chosen answer, and with more."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiltlm.objectives.bco import BCO
from tiltlm.objectives.common_settings import NllWeight, Pull
from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides
from tiltlm.objectives.logistic import log_sigmoid


@dataclass(frozen=True, config=SETTINGS)
class RpoSettings:
    """What `rpo` may be given."""

    beta: Pull = 0.1
    nll_weight: NllWeight = 1.0


def rpo(scored: Scored, settings: RpoSettings) -> LossOutput:
    """RPO (DPO and NLL): DPO, and imitation of the chosen answer so that its likelihood does not sink.

        loss = -log sigmoid(beta * h) - alpha * log pi(y_w|x) / |y_w|

    (arXiv 2404.19733, eq. 1), alpha being `nll_weight`, |y| a completion's number of tokens. The second term is each
    answer's mean over its own tokens, as in the paper. Peers: TRL's `rpo_alpha`, later `loss_type` sigmoid with sft,
    takes the mean over all tokens of the batch, in which long answers count more. Another paper calls a like sum RPO
    (arXiv 2405.16436, with a weight of 0.005).

    Units: nats, per pair and per token. At the start, when policy and reference agree, it is ln 2 - alpha * log
    pi(y_w|x) / |y_w|. Rewards: the implicit ones, beta * (log pi - log pi_ref).
    """
    log_ratios_N = scored.log_ratios()
    chosen_P, rejected_P = sides(log_ratios_N)
    means_P, _ = sides(scored.logps_N / scored.tokens_N)
    losses_P = -log_sigmoid(settings.beta * (chosen_P - rejected_P)) - settings.nll_weight * means_P
    return LossOutput(losses_P, settings.beta * log_ratios_N.detach())


RPO = Objective(
    name="rpo",
    loss=rpo,
    settings=RpoSettings,
    needs=Needs(counts=True),
    what="RPO: DPO and imitation of the chosen answer; where its likelihood must not sink, as in chains of reasoning.",
    aliases=("dpo_nll", "iterative_rpo"),
)


@dataclass(frozen=True, config=SETTINGS)
class MpoSettings:
    """What `mpo` may be given."""

    beta: Pull = 0.1
    preference_weight: Annotated[float, Field(ge=0)] = 0.8
    """Weight of DPO's loss."""
    quality_weight: Annotated[float, Field(ge=0)] = 0.2
    """Weight of BCO's loss."""
    nll_weight: NllWeight = 1.0


def mpo(scored: Scored, settings: MpoSettings) -> LossOutput:
    """MPO: which answer is better (DPO), whether each is good (BCO), and how to write one (imitation), in one sum.

        loss = w_p * -log sigmoid(r_w - r_l) + w_q * [-log sigmoid(r_w - delta) - log sigmoid(delta - r_l)]
               + w_g * -log pi(y_w|x) / |y_w|,        r = beta * (log pi(y|x) - log pi_ref(y|x))

    (arXiv 2411.10442, section 3.2), w_p, w_q, w_g being `preference_weight`, `quality_weight`, `nll_weight`. delta is
    that of `bco`: of pairs the mean of all rewards so far, those of this step's batch included, without gradient.
    Peers: TRL has delta = 0 here (its `bco_pair`), and takes the mean over the tokens of the batch for the last term.

    Units: nats, per pair and per token. At the start, when policy and reference agree, it is (w_p + 2 * w_q) * ln 2 -
    w_g * log pi(y_w|x) / |y_w|. Rewards: the implicit ones, r.
    """
    rewards_N = settings.beta * scored.log_ratios()
    chosen_P, rejected_P = sides(rewards_N)
    means_P, _ = sides(scored.logps_N / scored.tokens_N)
    delta = scored.running["delta"]
    preference_P = -log_sigmoid(chosen_P - rejected_P)
    quality_P = -log_sigmoid(chosen_P - delta) - log_sigmoid(delta - rejected_P)
    losses_P = settings.preference_weight * preference_P + settings.quality_weight * quality_P
    return LossOutput(losses_P - settings.nll_weight * means_P, rewards_N.detach())


MPO = Objective(
    name="mpo",
    loss=mpo,
    settings=MpoSettings,
    needs=Needs(counts=True, coupled=True),
    what="MPO: DPO, BCO and imitation in one sum; for reasoning, as InternVL was trained.",
    running=BCO.running,
)
