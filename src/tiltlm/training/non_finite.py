"""Why a loss or a gradient is not finite: what the step's own figures say, measured once it has failed.

Nothing here changes a weight. The figures are told as they are; a cause is named only where a figure shows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.scorer import Scorer
from tiltlm.objectives.interface import MISMATCHED
from tiltlm.plan.batches import Plan
from tiltlm.storage.library_errors import is_out_of_memory
from tiltlm.training.bound_objective import BoundObjective
from tiltlm.training.losses import backward, evaluated

NAMED = 10
"""Examples named in the message."""
LOOKED_AT = 64
"""Examples of the step that are looked at one by one."""
RECENT = 5
"""Steps before the failed one whose gradient norms are told."""
GROWTH = 4.0
"""How many times the median of the norms before it a norm must be to be called growing."""
FAR = 50.0
"""Log-ratio of policy to reference, in nats, beyond which a completion is called far from the reference."""
UNUSUAL = 4.0
"""How many times longer or shorter than the median of the training data a completion must be to be told."""


@dataclass(frozen=True, slots=True, eq=False)
class FailedStep:
    """A step whose loss or gradient is not finite, with the weights as they were before it.

    number: counted from 1. examples: the numbers of its examples. guilty: of those the ones whose loss is not finite;
        none where it is the gradient that is not.
    rates: the learning rate of the step before it (None where there was none) and its own; warmup: steps of warm-up.
    norms: gradient norms of the steps before it, oldest first. clip: the norm that gradients are clipped to; 0: none.
    plan: lays out some of the training examples.
    """

    number: int
    examples: Sequence[int]
    guilty: Sequence[int]
    rates: tuple[float | None, float]
    warmup: int
    norms: Sequence[float]
    clip: float
    columns: TokenColumns
    plan: Callable[[Sequence[int]], Plan]


@dataclass(frozen=True, slots=True)
class Cause:
    """What a figure shows, and what to do about it; an empty `mend` where that alone says nothing."""

    shown: str
    mend: str = ""


def explanation(failed: FailedStep, scorer: Scorer, objective: BoundObjective, precision: torch.dtype) -> str:
    """The message of a step that failed: which, at which examples, what its figures show, and what to do.

    The examples are computed again one at a time, without changing anything: to find those whose gradient is not
    finite, and to see whether float32 gives finite numbers where another arithmetic does not.
    """
    guilty = list(failed.guilty)
    if not guilty:
        guilty = _of_gradient(failed, scorer, objective, precision) or list(failed.examples)
    causes = [
        *_of_weights(scorer),
        *_of_arithmetic(failed, guilty, scorer, objective, precision),
        *_of_rates(failed),
        *_of_norms(failed),
        *_of_distance(failed, scorer, objective, precision),
        *_of_lengths(failed, guilty),
    ]
    names = [failed.columns.names[number] for number in guilty]
    mends = list(dict.fromkeys(cause.mend for cause in causes if cause.mend))
    if not mends:
        mends = ["lower training.learning_rate", "look at the examples"]
    return (
        f"step {failed.number}: the {'loss' if failed.guilty else 'gradient'} is not finite, at these examples: "
        f"{', '.join(names[:NAMED])}{' ...' if len(names) > NAMED else ''}. The weights were not changed by this step. "
        f"What its figures show: {'; '.join(cause.shown for cause in causes)}. Likely remedies: {'; '.join(mends)}."
    )


def told_of_ranks(number: int, columns: TokenColumns, guilty: Sequence[Sequence[int]]) -> str:
    """The message of a step that failed on several ranks, without what its figures show: one process measures them.

    guilty: of each rank the examples whose loss is not finite; none where it is the gradient that is not.
    """
    names = [columns.names[example] for example in dict.fromkeys(example for some in guilty for example in some)]
    where = f"loss is not finite, at these examples: {', '.join(names[:NAMED])}" if names else "gradient is not finite"
    return (
        f"step {number}: the {where}{' ...' if len(names) > NAMED else ''}. The weights were not changed by this step. "
        "To be told what its figures show, go on in one process: tiltlm train --resume RUN."
    )


def _of_weights(scorer: Scorer) -> Iterator[Cause]:
    broken = [name for name, weights in scorer.trained().items() if not bool(weights.isfinite().all())]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        yield Cause(
            f"weights are not finite already ({', '.join(broken[:3])}{more})",
            "start from sound weights: the step before broke them, or the model's files did",
        )


def _of_arithmetic(
    failed: FailedStep, guilty: Sequence[int], scorer: Scorer, objective: BoundObjective, precision: torch.dtype
) -> Iterator[Cause]:
    name = str(precision).removeprefix("torch.")
    if precision is torch.float32:
        yield Cause(f"the arithmetic is {name}")
        return
    try:
        if failed.guilty:
            finite = [_loss_is_finite(failed, number, scorer, objective) for number in guilty[:LOOKED_AT]]
        else:
            finite = [
                _gradient_is_finite(failed, number, scorer, objective, torch.float32) for number in guilty[:LOOKED_AT]
            ]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        yield Cause(f"the arithmetic is {name}")
        return
    if all(finite):
        yield Cause(f"in float32 these are finite, in {name} they are not", "set model.precision to float32")
    else:
        yield Cause(f"in float32 {len(finite) - sum(finite)} of {len(finite)} are not finite either")


def _of_rates(failed: FailedStep) -> Iterator[Cause]:
    before, rate = failed.rates
    rising = before is not None and rate > before and failed.number <= failed.warmup
    told = f"the learning rate is {rate:.3g}"
    if rising:
        told += f", raised from {before:.3g} by step {failed.number} of {failed.warmup} of the warm-up"
        yield Cause(told, "lower training.learning_rate or raise training.warmup_steps")
    else:
        yield Cause(told)


def _of_norms(failed: FailedStep) -> Iterator[Cause]:
    norms = [norm for norm in failed.norms if math.isfinite(norm)][-RECENT:]
    if not norms:
        yield Cause("no step was taken before it")
        return
    told = f"gradient norms of the steps before: {', '.join(f'{norm:.3g}' for norm in norms)}"
    if len(norms) > 2 and norms[-1] >= GROWTH * float(np.median(norms[:-1])):
        mend = "lower training.learning_rate"
        if not failed.clip:
            mend += ", and clip gradients (training.gradient_clip is 0, which does not)"
        yield Cause(f"{told}: they grow", mend)
    else:
        yield Cause(told)


def _of_distance(
    failed: FailedStep, scorer: Scorer, objective: BoundObjective, precision: torch.dtype
) -> Iterator[Cause]:
    """How far the policy is from the reference at the step's examples, where that is finite."""
    if not objective.needs.reference:
        return
    furthest, where = 0.0, -1
    for number in failed.examples[:LOOKED_AT]:
        for losses in evaluated(scorer, failed.plan([number]), objective, precision):
            own = losses.scored.log_ratios()[losses.scored.labels_N != MISMATCHED]
            for ratio in own[own.isfinite()].tolist():
                if abs(ratio) > abs(furthest):
                    furthest, where = ratio, number
    if abs(furthest) > FAR:
        name = failed.columns.names[where]
        yield Cause(
            f"the policy is far from the reference: its log-ratio at {name} is {furthest:+.3g} nats",
            "lower training.learning_rate or raise loss.beta, if the objective has one",
        )


def _of_lengths(failed: FailedStep, guilty: Sequence[int]) -> Iterator[Cause]:
    columns = failed.columns
    tokens, typical = columns.scored_tokens, float(np.median(columns.scored_tokens))
    for number in guilty[:NAMED]:
        own = tokens[columns.members[number] : columns.members[number + 1]]
        for length in (int(own.max()), int(own.min())):
            if length >= UNUSUAL * typical or length * UNUSUAL <= typical:
                kind = "long" if length > typical else "short"
                yield Cause(
                    f"{columns.names[number]} has an unusually {kind} completion, {length} tokens where the median is "
                    f"{typical:.0f}",
                    "look at that example",
                )
                break


def _of_gradient(failed: FailedStep, scorer: Scorer, objective: BoundObjective, precision: torch.dtype) -> list[int]:
    """The examples whose own gradient is not finite; none can be told where the loss couples them."""
    if objective.needs.coupled:
        return []
    return [
        number
        for number in failed.examples[:LOOKED_AT]
        if not _gradient_is_finite(failed, number, scorer, objective, precision)
    ]


def _gradient_is_finite(
    failed: FailedStep, number: int, scorer: Scorer, objective: BoundObjective, precision: torch.dtype
) -> bool:
    parameters = list(scorer.trained().values())
    try:
        backward(scorer, failed.plan([number]), objective, precision, lambda losses: None)
        norm = nn.utils.get_total_norm([own.grad for own in parameters if own.grad is not None])
        return bool(norm.isfinite())
    finally:
        for own in parameters:
            own.grad = None


def _loss_is_finite(failed: FailedStep, number: int, scorer: Scorer, objective: BoundObjective) -> bool:
    found = evaluated(scorer, failed.plan([number]), objective, torch.float32)
    return all(bool(losses.output.losses_U.isfinite().all()) for losses in found)
