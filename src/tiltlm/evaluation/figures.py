"""The figures drawn from answers before and after training. Knows no torch: a run's files are enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tiltlm.evaluation.length_control import length_controlled
from tiltlm.evaluation.win_rates import Scored, comparisons, win_rate
from tiltlm.runs.answers import Answer, Comparison
from tiltlm.runs.estimates import AnswerStatistics, Divergence, Estimate
from tiltlm.runs.outcomes import Figures
from tiltlm.statistics import bootstrap_mean, mean_change_of_share, mean_share, standard_error


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
    old, new = ([_scored(drawn) for drawn in side] for side in (befores, afters))
    won = win_rate([scored.rewards for scored in old], [scored.rewards for scored in new])
    controlled = length_controlled(comparisons(old, new))
    before, after, difference = _rewards(old, new)
    return replace(
        common,
        reward_before=before,
        reward_after=after,
        reward_difference=difference,
        win_rate=won.mean,
        win_rate_interval=won.interval,
        length_controlled_win_rate=controlled.estimate,
        length_controlled_win_rate_why=controlled.why,
    )


def _scored(answers: Sequence[Answer]) -> Scored:
    return Scored([_reward(answer) for answer in answers], [answer.tokens for answer in answers])


def _rewards(old: Sequence[Scored], new: Sequence[Scored]) -> tuple[Estimate, Estimate, Estimate]:
    """The mean reward over prompts before and after, and its change prompt by prompt.

    Of rewards that are all 0 or 1 the means are shares, whose intervals the bootstrap makes too narrow near 0 and 1.
    """
    before, after = ([float(np.mean(scored.rewards)) for scored in side] for side in (old, new))
    change = [one - other for one, other in zip(after, before, strict=True)]
    shares = all(reward in (0, 1) for side in (old, new) for scored in side for reward in scored.rewards)
    mean = mean_share if shares else bootstrap_mean
    return mean(before), mean(after), mean_change_of_share(change) if shares else mean(change)


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
