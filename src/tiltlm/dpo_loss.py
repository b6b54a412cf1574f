"""The objectives: pure functions from log-probabilities to losses, in one table.

Notation: pi is the policy, pi_ref the reference, (x, y_w, y_l) a prompt with its chosen and rejected completion,
and  h = [log pi(y_w|x) - log pi_ref(y_w|x)] - [log pi(y_l|x) - log pi_ref(y_l|x)]  the log-ratio margin, in nats
(theory.pdf, eq. 9 (margin)). The implicit reward of a completion is  r(x, y) = beta * (log pi(y|x) - log pi_ref(y|x))
(theory.pdf, eq. 8 (implicit-reward); arXiv 2305.18290, eq. 5, without the term that depends on x alone), so beta * h is
the implicit reward margin. Why that term may go: theory.pdf, Proposition 3 (cancellation).
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from tiltlm.records import LossOutput, LossSettings, PairLogps

Loss = Callable[[PairLogps, PairLogps, LossSettings], LossOutput]


def sigmoid(policy: PairLogps, reference: PairLogps, settings: LossSettings) -> LossOutput:
    """DPO: the negative log-likelihood of the preferences under Bradley-Terry.

        loss = -log sigmoid(beta * h)

    (theory.pdf, eq. 10 (dpo); arXiv 2305.18290, eq. 7). Its gradient weighs a pair by the probability that the implicit
    reward gives to the other label (theory.pdf, eq. 12 (gradient)).

    With label smoothing e, the share of labels taken to be flipped (conservative DPO, theory.pdf, eq. 18
    (smoothed); E. Mitchell, https://ericmitchell.ai/cdpo.pdf, eq. 3):

        loss = -(1 - e) * log sigmoid(beta * h) - e * log sigmoid(-beta * h)

    Units: nats per pair. At the start, when policy and reference agree, it is ln 2 whatever e is.
    """
    chosen, rejected = _log_ratios(policy, reference)
    logits_P = settings.beta * (chosen - rejected)
    e = settings.label_smoothing
    losses_P = -(1 - e) * F.logsigmoid(logits_P) - e * F.logsigmoid(-logits_P)
    return _output(losses_P, chosen, rejected, settings)


def ipo(policy: PairLogps, reference: PairLogps, settings: LossSettings) -> LossOutput:
    """IPO: squared distance of the log-ratio margin to its target.

        loss = (h_mean - 1 / (2 * beta))^2

    (theory.pdf, eq. 19 (ipo); arXiv 2310.12036, eq. 17, tau = beta). What it is for: theory.pdf, Proposition 9
    (deterministic).

    The log-ratios in h_mean are averaged over each completion's own tokens, as the authors do, so that long
    completions do not reach the target by length alone (huggingface/trl#1677).

    Units: nats^2 per pair. At the start it is 1 / (4 * beta^2). The reported rewards are the per-completion
    implicit rewards, as for every objective.
    """
    chosen, rejected = _log_ratios(policy, reference)
    h_mean = chosen / policy.chosen_tokens_P - rejected / policy.rejected_tokens_P
    losses_P = (h_mean - 1 / (2 * settings.beta)).square()
    return _output(losses_P, chosen, rejected, settings)


LOSSES: dict[str, Loss] = {"sigmoid": sigmoid, "ipo": ipo}
"""Every objective by its name in the configuration."""


def _log_ratios(policy: PairLogps, reference: PairLogps) -> tuple[Tensor, Tensor]:
    return policy.chosen_P - reference.chosen_P, policy.rejected_P - reference.rejected_P


def _output(losses_P: Tensor, chosen: Tensor, rejected: Tensor, settings: LossSettings) -> LossOutput:
    return LossOutput(
        losses_P=losses_P,
        chosen_rewards_P=settings.beta * chosen.detach(),
        rejected_rewards_P=settings.beta * rejected.detach(),
    )
