"""`comparison.json`: answers before and after training. Log-probabilities are in nats."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ComparisonSettings:
    """How the answers were generated; `reward` is `none` where no known reward scored them."""

    max_new_tokens: int
    temperature: float
    samples: int
    seed: int
    reward: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One generated answer.

    reference_logp: log pi_ref(y|x), the sum over its tokens.
    log_ratio: log pi(y|x) - log pi_ref(y|x); for the trained model's samples alone, where it estimates the KL.
    Both are those of the distributions that answers are drawn from, at the sampling temperature.
    """

    text: str
    tokens: int
    reward: float | None = None
    reference_logp: float | None = None
    log_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model answers to one prompt."""

    greedy: Answer
    samples: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class ComparedPrompt:
    """A prompt answered before and after training. Where `counted` is False it is shown, but in no figure.

    plain_log_ratios: log pi(y|x) - log pi_ref(y|x) of further answers of the trained model, drawn and scored at
        temperature 1 and not kept, where the samples have another temperature.
    """

    id: str
    prompt: str
    counted: bool
    before: Answers
    after: Answers
    plain_log_ratios: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """`comparison.json`."""

    settings: ComparisonSettings
    prompts: tuple[ComparedPrompt, ...]
