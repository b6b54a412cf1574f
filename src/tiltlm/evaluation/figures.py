"""The figures drawn from answers before and after training. Knows no torch: a run's files are enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tiltlm.runs.answers import Answer, Comparison
from tiltlm.runs.estimates import AnswerStatistics, Divergence, Estimate
from tiltlm.runs.outcomes import Figures
from tiltlm.statistics import bootstrap_mean, standard_error


def figures(comparison: Comparison) -> Figures:
    """Draws the figures from a comparison's sampled answers."""
    counted = [prompt for prompt in comparison.prompts if prompt.counted and prompt.before.samples]
    if not counted:
        return Figures(counted_prompts=0)
    befores, afters = [prompt.before.samples for prompt in counted], [prompt.after.samples for prompt in counted]
    temperature = comparison.settings.temperature
    ratios = [[answer.log_ratio for answer in drawn if answer.log_ratio is not None] for drawn in afters]
    plain = [list(prompt.plain_log_ratios or ()) for prompt in counted]
    common = Figures(
        counted_prompts=len(counted),
        kl=_divergence(ratios if temperature == 1 else plain, 1.0),
        kl_at_temperature=None if temperature == 1 else _divergence(ratios, temperature),
        answers_before=_statistics([answer for drawn in befores for answer in drawn]),
        answers_after=_statistics([answer for drawn in afters for answer in drawn]),
        length_change=_change(befores, afters, lambda answer: float(answer.tokens)),
        repetition_change=_change(befores, afters, lambda answer: repetition(answer.text)),
        surprise_change=_change(befores, afters, _surprise),
    )
    drawn = [answer for side in (befores, afters) for answers in side for answer in answers]
    if comparison.settings.reward == "none" or any(answer.reward is None for answer in drawn):
        return common
    before, after = ([_mean_reward(drawn) for drawn in side] for side in (befores, afters))
    wins = [
        float(np.mean([(_reward(new) > _reward(old)) + 0.5 * (_reward(new) == _reward(old)) for old, new in pairs]))
        for pairs in (list(zip(old, new, strict=True)) for old, new in zip(befores, afters, strict=True))
    ]
    win_rate = bootstrap_mean(wins)
    return replace(
        common,
        reward_before=bootstrap_mean(before),
        reward_after=bootstrap_mean(after),
        reward_difference=bootstrap_mean([new - old for old, new in zip(before, after, strict=True)]),
        win_rate=win_rate.mean,
        win_rate_interval=win_rate.interval,
    )


def _change(
    befores: Sequence[Sequence[Answer]], afters: Sequence[Sequence[Answer]], measure: Callable[[Answer], float]
) -> Estimate:
    """The mean over prompts of what a prompt's answers have on average after training, less what they had before."""
    before, after = (
        [float(np.mean([measure(answer) for answer in drawn])) for drawn in side] for side in (befores, afters)
    )
    return bootstrap_mean([new - old for old, new in zip(before, after, strict=True)])


def _surprise(answer: Answer) -> float:
    return -(answer.reference_logp or 0.0) / max(1, answer.tokens)


def _divergence(ratios: Sequence[Sequence[float]], temperature: float) -> Divergence | None:
    """The mean over prompts of the mean log-ratio of a prompt's samples; None where one has none."""
    if not all(ratios):
        return None
    means = [float(np.mean(drawn)) for drawn in ratios]
    return Divergence(
        mean=float(np.mean(means)),
        standard_error=standard_error(means),
        samples=sum(len(drawn) for drawn in ratios),
        temperature=temperature,
    )


def _reward(answer: Answer) -> float:
    assert answer.reward is not None
    return answer.reward


def _mean_reward(answers: Sequence[Answer]) -> float:
    return float(np.mean([_reward(answer) for answer in answers]))


def _statistics(answers: Sequence[Answer]) -> AnswerStatistics:
    tokens = sum(answer.tokens for answer in answers)
    surprise = -sum(answer.reference_logp or 0.0 for answer in answers)
    return AnswerStatistics(
        tokens=tokens / len(answers),
        repetition=float(np.mean([repetition(answer.text) for answer in answers])),
        surprise=surprise / max(1, tokens),
    )


def repetition(text: str) -> float:
    """Share of a text's word trigrams that occurred in it before; 0 for fewer than three words."""
    words = text.lower().split()
    trigrams = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0
