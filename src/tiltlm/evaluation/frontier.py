"""Where models stand between the reference and the limit. Knows no torch: rewards and log-ratios of answers are enough.

Shape suffixes: P prompts, N answers of the reference to each, M answers of a model to each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tiltlm.evaluation.limit import FEWEST_EFFECTIVE, Limit, RewardLimit, best_of, best_of_kl
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.frontier_record import BestOf, Frontier, FrontierPoint, FrontierSettings, LimitPoint
from tiltlm.statistics import bootstrap_mean, expanded_interval

RESAMPLES = 4_000
CURVE_POINTS = 41
"""Points of the limit that are kept, evenly spaced in the square root of KL."""
BEYOND = 1.3
"""How far the limit is followed beyond the dearest point, as a multiple of its KL."""
LEAST_CURVE = 1.0
"""Nats up to which the limit is followed however little was paid."""
MOST_DRAWN = 20_000
"""Answers of the reference to a prompt beyond which nobody is told to draw more."""


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """A model's answers to the prompts.

    rewards_PM: of its answers. log_ratios_PM: log pi(y|x) - log pi_ref(y|x) in nats, at the temperature of the answers,
        whose mean is the KL.
    """

    name: str
    step: int | None
    rewards_PM: np.ndarray
    log_ratios_PM: np.ndarray


def frontier(reference_PN: np.ndarray, path: Sequence[Answered], settings: FrontierSettings) -> Frontier:
    """The reference, the limit, best-of-n and the path of a run, on the same prompts.

    Args:
        reference_PN: rewards of the reference's answers.
    """
    limit = RewardLimit(reference_PN)
    points = tuple(_point(one, reference_PN, limit) for one in path)
    choices = [2**power for power in range(1, 1 + int(math.log2(reference_PN.shape[1])))]
    best = tuple(
        BestOf(n=n, reward=bootstrap_mean(best_of(reference_PN, n).tolist()), kl=best_of_kl(n)) for n in choices
    )
    dearest = max([LEAST_CURVE, *(BEYOND * point.kl.mean for point in points)])
    return Frontier(
        settings=settings,
        reference=bootstrap_mean(reference_PN.mean(1).tolist()),
        limit=tuple(_limit_point(one) for one in limit.curve(CURVE_POINTS, dearest)),
        best_of=best,
        path=points,
    )


def _limit_point(limit: Limit) -> LimitPoint:
    beta = limit.beta if math.isfinite(limit.beta) else None
    return LimitPoint(kl=limit.kl, reward=limit.reward, beta=beta, effective=limit.effective)


def _point(model: Answered, reference_PN: np.ndarray, limit: RewardLimit) -> FrontierPoint:
    reward_P, kl_P, reference_P = model.rewards_PM.mean(1), model.log_ratios_PM.mean(1), reference_PN.mean(1)
    kl = bootstrap_mean(kl_P.tolist())
    gain = bootstrap_mean((reward_P - reference_P).tolist())
    found = limit.at(kl.mean)
    why = _why_none(found, kl, limit, reference_PN.shape[1])
    share = None if why else _share(reward_P, kl_P, limit, found)
    return FrontierPoint(
        name=model.name,
        step=model.step,
        reward=bootstrap_mean(reward_P.tolist()),
        gain=gain,
        kl=kl,
        limit=None if found.thin else found.reward,
        effective=found.effective,
        bias=found.bias,
        share=share,
        why=why,
    )


def _why_none(found: Limit, kl: Estimate, limit: RewardLimit, answers: int) -> str | None:
    """Why a share of the possible gain would say nothing, in words; None where it says something."""
    if kl.interval is None or kl.interval[0] <= 0:
        return "its KL is not shown to be above nought: it has not moved far enough for a gain to be possible"
    if found.effective < FEWEST_EFFECTIVE:
        return (
            f"the limit at {kl.mean:.2f} nats rests on {found.effective:.1f} answers a prompt, and fewer than "
            f"{FEWEST_EFFECTIVE:.0f} tell nothing: {_how_many(found, kl.mean, answers)}"
        )
    if found.thin:
        return (
            f"{kl.mean:.2f} nats are more than it takes to give the best of the reference's answers that were drawn, "
            f"and nobody knows of better ones: {_how_many(found, kl.mean, answers)}"
        )
    if found.reward - limit.reference <= 0:
        return "all answers of the reference have the same reward, so there is nothing to gain"
    return None


def _how_many(found: Limit, kl: float, answers: int) -> str:
    """How many answers of the reference would tell of the limit at a price, in words.

    The effective number is at most N exp(-KL): by Jensen's inequality the log of the sum of squared weights, which is a
    mean of log-weights under the weights, is at least log(1 / N) + KL.
    """
    if kl > math.log(MOST_DRAWN):
        wanted = math.inf
    else:
        wanted = max(1.5 * FEWEST_EFFECTIVE / found.effective * answers, FEWEST_EFFECTIVE * math.exp(kl))
    if wanted > MOST_DRAWN:
        return f"it would take more than {MOST_DRAWN:,} answers of the reference, so drawing will not tell it"
    return f"draw about {math.ceil(wanted)} answers of the reference (--reference-answers)"


def _share(reward_P: np.ndarray, kl_P: np.ndarray, limit: RewardLimit, found: Limit) -> Estimate:
    """The gain as a share of what was possible, with an interval that draws whole prompts: their answers of both
    models, so that price and limit are of the prompts drawn."""
    prompts = len(reward_P)
    share = float((reward_P.mean() - limit.reference) / (found.reward - limit.reference))
    if prompts == 1:
        return Estimate(share, None, 1)
    drawn_BP = np.random.default_rng(0).multinomial(prompts, np.full(prompts, 1 / prompts), RESAMPLES)
    shares_BP = drawn_BP / prompts
    reference_B, limit_B = limit.resampled(shares_BP, shares_BP @ kl_P)
    possible_B = limit_B - reference_B
    told_B = possible_B > 0  # where no price was paid, nothing was possible, and there is no share
    shares_B = (shares_BP @ reward_P - reference_B)[told_B] / possible_B[told_B]
    return expanded_interval(share, shares_B, prompts)
