"""Figures with what is known of their error. Log-probabilities are in nats, intervals cover 95%."""

from __future__ import annotations

from dataclasses import dataclass

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over prompts and its interval. clusters: of how many prompts; None in files that did not record it."""

    mean: float
    interval: Interval | None = None
    clusters: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """KL(policy || reference) in nats per answer, estimated on `samples` answers of the policy.

    temperature: of both distributions and of the answers. At 1 they are the models themselves, and this is what was
        paid for the reward: the second term of theory.pdf, eq. 1 (objective). None: the sampling temperature, in files
        that did not record it.
    """

    mean: float
    standard_error: float | None = None
    samples: int
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class AnswerStatistics:
    """Means over sampled answers: length in tokens, share of repeated word trigrams, -log pi_ref per token.

    log pi_ref is at the sampling temperature, as the answers are. What `surprise` can and cannot tell of who wrote the
    answers: theory.pdf, Proposition 18 (surprise).
    """

    tokens: float
    repetition: float
    surprise: float
