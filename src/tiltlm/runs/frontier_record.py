"""`frontier.json`: mean reward against KL from the reference, and the most that any policy could have had.

KL is in nats an answer, at the temperature of the answers. Intervals cover 95%, with prompts as the unit.
"""

from __future__ import annotations

from dataclasses import dataclass

from tiltlm.runs.estimates import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierSettings:
    """What was asked of whom.

    reward: the judge whose rewards are the truth here. prompts: how many held-out prompts were answered.
    reference_answers: of the reference to each of them. answers: of each model on the path.
    """

    reward: str
    prompts: int
    reference_answers: int
    answers: int
    temperature: float
    max_new_tokens: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitPoint:
    """The most mean reward at a price.

    beta: what a nat more would buy; None at no price at all, where it is unbounded.
    effective: answers a prompt that it rests on.
    """

    kl: float
    reward: float
    beta: float | None
    effective: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOf:
    """The best of n answers of the reference. kl: at most so much, and so much where rewards all differ."""

    n: int
    reward: Estimate
    kl: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """A model on the run's path.

    step: its optimizer steps; None for a model that is none of the run's own.
    gain: its reward less the reference's, prompt by prompt.
    limit: the most reward at its KL; effective: answers a prompt that this rests on; bias: what was added to it, as
        such estimates are too low on average.
    share: of the possible gain at its KL, the part that it reached. why: why there is none.
    """

    name: str
    step: int | None = None
    reward: Estimate
    gain: Estimate
    kl: Estimate
    limit: float | None = None
    effective: float | None = None
    bias: float | None = None
    share: Estimate | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """`frontier.json`. limit: as far as enough answers of the reference speak for it. path: in order of training."""

    settings: FrontierSettings
    reference: Estimate
    limit: tuple[LimitPoint, ...]
    best_of: tuple[BestOf, ...]
    path: tuple[FrontierPoint, ...]
