"""`origins.json`: what log-probabilities tell of who wrote the answers that a run was trained on.

Log-probabilities are in nats, of the model as it was before training, at temperature 1; intervals cover 95%, over
prompts. What can and cannot be told: theory.pdf, Proposition 18 (surprise).
"""

from __future__ import annotations

from dataclasses import dataclass

from tiltlm.runs.estimates import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOrigins:
    """Some of the training examples, each of another prompt, beside one sample of the model itself to each prompt.

    prompts: how many. too_long: prompts passed over, as they leave the model no room to answer.
    first_tokens: how many tokens of an answer are compared with samples, which are no longer than that.
    chosen, rejected, own: surprise, -log pi per token, the mean over answers of each one's mean; own: of the samples.
    gap: of an example's answers, averaged, less that of the sample to its prompt. A label selects between the answers,
        so neither alone needs to look like the model's own even where both are; together they do.
    chosen_minus_own, rejected_minus_own: the same of each side.
    temperature: at which the answers are likeliest, had the model written them: by its expectations of each token,
        whatever stands before; see `evaluation/origin_figures.py`. From the lowest to the highest that was tried.
    token_scatter, answer_scatter: the squared surprise beyond what was expected, of tokens and of whole answers, as a
        multiple of what is expected of the model at that temperature: 1 where the model wrote them.
    sayable: share of the answers that are no more surprising, as wholes, than 99 in 100 of the model's own would be.
    own_sayable: the same of the samples.
    aligned: effective share of the pairs' weights in WPO, before training: theory.pdf, eq. 27 (wpo).
    """

    prompts: int
    too_long: int
    first_tokens: int
    chosen: Estimate | None
    rejected: Estimate | None
    own: Estimate
    gap: Estimate
    chosen_minus_own: Estimate | None
    rejected_minus_own: Estimate | None
    temperature: Estimate
    temperatures_tried: tuple[float, float]
    token_scatter: Estimate
    answer_scatter: Estimate
    sayable: Estimate
    own_sayable: Estimate
    aligned: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class PairWeights:
    """Effective shares, at most 1, of weights of training examples under the saved model: a part of `evaluation.json`.

    moved: of pi(y|x) / pi_0(y|x), multiplied over an example's answers, pi_0 being the model before training: how much
        of examples that pi_0 wrote still counts for what the policy has become; theory.pdf, eq. 30 (effective).
    aligned: of WPO's weights, with the saved model as the policy.
    """

    moved: Estimate
    aligned: Estimate
