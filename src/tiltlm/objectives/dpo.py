"""DPO, DPO with smoothed labels or another divergence, and DPO per token.

Notation, here and in the other families: pi is the policy, pi_ref the reference, (x, y_w, y_l) a prompt with its chosen
and rejected completion, and  h = [log pi(y_w|x) - log pi_ref(y_w|x)] - [log pi(y_l|x) - log pi_ref(y_l|x)]  the
log-ratio margin, in nats (theory.pdf, eq. 9 (margin)). The implicit reward of a completion is  r(x, y) = beta *
(log pi(y|x) - log pi_ref(y|x))  (theory.pdf, eq. 8 (implicit-reward); arXiv 2305.18290, eq. 5, without the term that
depends on x alone), so beta * h is the implicit reward margin. Why that term may go: theory.pdf, Proposition 3
(cancellation).
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from tiltlm.objectives.common_settings import Pull, Smoothing
from tiltlm.objectives.divergences import USUAL_ALPHA, Divergence, DivergenceAlpha, require_read, reward_per_beta
from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored, sides
from tiltlm.objectives.logistic import log_sigmoid


@dataclass(frozen=True, config=SETTINGS)
class SigmoidSettings:
    """What `sigmoid` may be given."""

    beta: Pull = 0.1
    label_smoothing: Smoothing = 0.0
    divergence: Divergence = "reverse_kl"
    divergence_alpha: DivergenceAlpha = USUAL_ALPHA

    def __post_init__(self) -> None:
        require_read(self.divergence, self.divergence_alpha)


def sigmoid(scored: Scored, settings: SigmoidSettings) -> LossOutput:
    """DPO: the negative log-likelihood of the preferences under Bradley-Terry.

        loss = -log sigmoid(beta * h)

    (theory.pdf, eq. 10 (dpo); arXiv 2305.18290, eq. 7). Its gradient weighs a pair by the probability that the implicit
    reward gives to the other label (theory.pdf, eq. 12 (gradient)).

    With label smoothing e, the share of labels taken to be flipped (conservative DPO, theory.pdf, eq. 18
    (smoothed); E. Mitchell, https://ericmitchell.ai/cdpo.pdf, eq. 3):

        loss = -(1 - e) * log sigmoid(beta * h) - e * log sigmoid(-beta * h)

    With another divergence than the reverse KL, h is that of f-DPO (arXiv 2309.16240, Theorem 1): the log-ratios q are
    passed through g before they are subtracted. forward_kl: 1 - exp(-q); js: ln 2 + log sigmoid(q); alpha:
    (1 - exp(-a * q)) / a. Below an exponent of -20 exp goes on as its tangent, so that no loss overflows.

    Peers: TRL reads label_smoothing not here but in its `robust` and `exo_pair` alone; its coefficient of the
    alpha-divergence is 1 - a; it stops exp at 80, where the gradient is 0, and leaves that of its forward KL to
    overflow.

    Units: nats per pair. At the start, when policy and reference agree, it is ln 2 whatever the settings are.
    Rewards: the implicit ones, beta * g(log pi - log pi_ref).
    """
    rewards_N = reward_per_beta(scored.log_ratios(), settings.divergence, settings.divergence_alpha)
    chosen_P, rejected_P = sides(rewards_N)
    logits_P = settings.beta * (chosen_P - rejected_P)
    e = settings.label_smoothing
    losses_P = -(1 - e) * log_sigmoid(logits_P) - e * log_sigmoid(-logits_P)
    return LossOutput(losses_P, settings.beta * rewards_N.detach())


SIGMOID = Objective(
    name="sigmoid",
    loss=sigmoid,
    settings=SigmoidSettings,
    needs=Needs(),
    what="DPO: raises the odds of the chosen answer over the rejected one, against the reference; the first to try.",
    aliases=("dpo", "cdpo", "logistic", "f_dpo"),
)


@dataclass(frozen=True, config=SETTINGS)
class SigmoidNormSettings:
    """What `sigmoid_norm` may be given."""

    beta: Pull = 5.0


def sigmoid_norm(scored: Scored, settings: SigmoidNormSettings) -> LossOutput:
    """DPO on log-ratios per token: length alone earns no margin.

        loss = -log sigmoid(beta * (q_w / |y_w| - q_l / |y_l|)),    q = log pi(y|x) - log pi_ref(y|x)

    (arXiv 2411.15124, the length-normalised DPO of Tulu 3, with its beta of 5), |y| being a completion's number of
    tokens. A mean per token is some hundred times smaller than a sum, so beta is larger than that of `sigmoid`. Peers:
    TRL's beta is 0.1 here too, by default, at which there is little to learn.

    Units: nats per pair. At the start, when policy and reference agree, it is ln 2.
    Rewards: beta * (log pi - log pi_ref) / |y|, per token, as they are compared.
    """
    means_N = scored.log_ratios() / scored.tokens_N
    chosen_P, rejected_P = sides(means_N)
    losses_P = -log_sigmoid(settings.beta * (chosen_P - rejected_P))
    return LossOutput(losses_P, settings.beta * means_N.detach())


SIGMOID_NORM = Objective(
    name="sigmoid_norm",
    loss=sigmoid_norm,
    settings=SigmoidNormSettings,
    needs=Needs(counts=True),
    what="DPO per token: compares mean log-ratios, so that length alone earns nothing; where DPO makes answers long.",
    aliases=("dpo_norm", "dpo_ln"),
)
