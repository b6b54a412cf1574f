"""Pairs whose answers are judged by their own rewards, not only by the margin between them."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from tiltlm.objectives.common_settings import Pull
from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides
from tiltlm.objectives.logistic import log_sigmoid


@dataclass(frozen=True, config=SETTINGS)
class NcaPairSettings:
    """What `nca_pair` may be given."""

    beta: Pull = 0.01


def nca_pair(scored: Scored, settings: NcaPairSettings) -> LossOutput:
    """NCA on pairs: the chosen answer's reward is raised, and both are kept from growing large.

        loss = -log sigmoid(r_w) - 1/2 * log sigmoid(-r_w) - 1/2 * log sigmoid(-r_l),
        r = beta * (log pi(y|x) - log pi_ref(y|x))

    (arXiv 2402.05369, its loss for pairwise preferences). The chosen reward settles at ln 2, where its slope is 0; the
    rejected one is pushed down. It is no function of the margin h alone. Peers: TRL's beta is 0.1 by default.

    Units: nats per pair. At the start, when policy and reference agree, it is 2 ln 2.
    Rewards: the implicit ones, r.
    """
    rewards_N = settings.beta * scored.log_ratios()
    chosen_P, rejected_P = sides(rewards_N)
    losses_P = -log_sigmoid(chosen_P) - 0.5 * log_sigmoid(-chosen_P) - 0.5 * log_sigmoid(-rejected_P)
    return LossOutput(losses_P, rewards_N.detach())


NCA_PAIR = Objective(
    name="nca_pair",
    loss=nca_pair,
    settings=NcaPairSettings,
    needs=Needs(),
    what="NCA: holds the chosen answer's own likelihood up, not only the margin; where DPO lets both answers sink.",
)


@dataclass(frozen=True, config=SETTINGS)
class BcoPairSettings:
    """What `bco_pair` may be given."""

    beta: Pull = 0.01


def bco_pair(scored: Scored, settings: BcoPairSettings) -> LossOutput:
    """A classifier's loss on both answers: rewards above 0 for chosen ones, below 0 for rejected ones.

        loss = -log sigmoid(r_w) - log sigmoid(-r_l),    r = beta * (log pi(y|x) - log pi_ref(y|x))

    It is BCO (arXiv 2404.04656) without its shift delta, the mean reward, under the name and in the form that TRL has
    for pairs; `bco` is the paper's, for answers that are labelled one by one. Peers: TRL's beta is 0.1 by default, the
    paper's is 0.01.

    Units: nats per pair. At the start, when policy and reference agree, it is 2 ln 2.
    Rewards: the implicit ones, r.
    """
    rewards_N = settings.beta * scored.log_ratios()
    chosen_P, rejected_P = sides(rewards_N)
    return LossOutput(-log_sigmoid(chosen_P) - log_sigmoid(-rejected_P), rewards_N.detach())


BCO_PAIR = Objective(
    name="bco_pair",
    loss=bco_pair,
    settings=BcoPairSettings,
    needs=Needs(),
    what="TRL's bco_pair: each answer's reward against 0, the chosen up and the rejected down; to compare with TRL.",
)
