"""What a run showed, in sentences: the last lines of the console and the top of the page.

A sentence claims an effect only where its 95% interval is clear of chance or zero.
"""

from __future__ import annotations

import math

from tiltlm.report.coherence import signs_of_decay
from tiltlm.report.course import Finding, course
from tiltlm.report.learnt_from import has_reference, imitates, unit
from tiltlm.report.wording import at_temperature, count, duration, estimated, number, percent, signed
from tiltlm.runs.estimates import Estimate, Interval
from tiltlm.runs.outcomes import Summary
from tiltlm.statistics import STUDIED_FROM

# Of the trained margin, what the saved weights must have at least.
SURVIVING = 0.95
# Nats per completion: less is nothing that anybody could notice, and hardly above rounding.
STILL = 1e-4


NEGATIVE_KL = (
    "A KL divergence is never negative; its estimate can be, from few answers, where the true value is small against "
    "the error."
)
"""Said wherever an estimate below zero is shown."""


def verdict(summary: Summary) -> list[str]:
    """The findings as sentences, most important first, and what the run's answers to common questions add to them."""
    added = [answer.line for answer in summary.questions if answer.line is not None]
    return [*(finding.sentence for finding in findings(summary)), *added]


def findings(summary: Summary) -> list[Finding]:
    """What the run showed and what it did not, most important first."""
    return [
        *course(summary),
        _loss(summary) if imitates(summary) else _accuracy(summary),
        _reward(summary),
        _divergence(summary),
        *_saving(summary),
        _coherence(summary),
        _log_probabilities(summary),
        _cost(summary),
    ]


def _loss(summary: Summary) -> Finding:
    topic, loss, change = "Held-out loss", summary.eval_loss, summary.eval_loss_change
    if loss is None:
        return Finding(topic, "not measured", "The held-out loss was not measured.")
    of_all = f" of {count(summary.eval_pairs, 'held-out demonstration')}" if summary.eval_pairs is not None else ""
    fact = f"The loss{of_all} is {number(loss)} nats a token (perplexity {number(math.exp(min(loss, 700.0)))})"
    if change is None or change.interval is None:
        return Finding(topic, "not shown", f"{fact}; without an interval of its change, an effect is not shown.")
    fact += f", changed by {estimated(change)}"
    side = _side(change.interval, 0.0)
    if side < 0:
        return Finding(topic, "shown", f"{fact}: the model answers more like them than before.")
    if side > 0:
        advice = "Lower the learning rate, or train for fewer steps"
        return Finding(topic, "caution", f"{fact}: the model answers less like them than before. {advice}.")
    return Finding(topic, "not shown", f"{fact}: a change is not shown, for the interval includes zero.")


def _accuracy(summary: Summary) -> Finding:
    topic = "Held-out accuracy"
    accuracy, interval = summary.eval_accuracy, summary.eval_accuracy_interval
    if accuracy is None:
        return Finding(topic, "not measured", "Held-out accuracy was not measured.")
    held_out = f"held-out {unit(summary)}"
    of_all = f" of {count(summary.eval_pairs, held_out)}" if summary.eval_pairs is not None else ""
    paired = unit(summary) == "pair"
    reward = "The implicit reward" if has_reference(summary) else "The reward"
    what = f"{reward} ranks chosen above rejected" if paired else f"{reward} has the sign of the label"
    fact = f"{what} in {percent(accuracy)}{of_all}"
    if not paired:
        spread = "" if interval is None else f" (95% interval {percent(interval[0])} to {percent(interval[1])})"
        return Finding(topic, "note", f"{fact}{spread}; what chance would give depends on the share of each label.")
    if interval is None:
        return Finding(topic, "not shown", f"{fact}; without an interval, an effect is not shown.")
    fact += f" (95% interval {percent(interval[0])} to {percent(interval[1])})"
    side = _side(interval, 0.5)
    if side > 0:
        return Finding(topic, "shown", f"{fact}: better than chance.")
    if side < 0:
        advice = "Check that chosen and rejected are not swapped"
        if not has_reference(summary):
            advice += "; without a reference, the model may also have ranked them so before it was trained"
        return Finding(topic, "caution", f"{fact}: worse than chance. {advice}.")
    return Finding(topic, "not shown", f"{fact}: better than chance is not shown, for the interval includes 50%.")


def _reward(summary: Summary) -> Finding:
    topic = "Known reward"
    if summary.reward is None:
        sentence = "No known reward was set: whether the answers got better was not measured."
        return Finding(topic, "not measured", sentence)
    name, difference = f"The known reward ({summary.reward})", summary.reward_difference
    if difference is None:
        return Finding(topic, "not measured", f"{name} of the answers was not measured.")
    levels = _levels(summary.reward_before, summary.reward_after) + _over_prompts(summary)
    if difference.interval is None:
        sentence = f"{name} changed by {signed(difference.mean)}{levels}; without an interval, an effect is not shown."
        return Finding(topic, "not shown", sentence + _win_rate(summary))
    spread = f"(95% interval {number(difference.interval[0])} to {number(difference.interval[1])})"
    side = _side(difference.interval, 0.0)
    if side == 0:
        sentence = f"{name} changed by {signed(difference.mean)} {spread}{levels}: "
        sentence += "a change is not shown, for the interval includes zero."
        return Finding(topic, "not shown", sentence + _win_rate(summary))
    verb = "rose" if side > 0 else "fell"
    sentence = f"{name} {verb} by {number(abs(difference.mean))} {spread}{levels}."
    return Finding(topic, "shown" if side > 0 else "caution", sentence + _win_rate(summary))


def _levels(before: Estimate | None, after: Estimate | None) -> str:
    if before is None or after is None:
        return ""
    return f", from {number(before.mean)} to {number(after.mean)} per sampled answer"


def _over_prompts(summary: Summary) -> str:
    return "" if summary.counted_prompts is None else f", over {count(summary.counted_prompts, 'prompt')}"


def _win_rate(summary: Summary) -> str:
    if summary.win_rate is None:
        return ""
    share, controlled = _share(summary.win_rate, summary.win_rate_interval), summary.length_controlled_win_rate
    sentence = f" The trained model's answer has the higher reward in {share}"
    if controlled is not None:
        sentence += f"; with length controlled for, in {_share(controlled.mean, controlled.interval, '')}"
    few = summary.counted_prompts is not None and summary.counted_prompts < STUDIED_FROM
    return f"{sentence}.{f' Intervals over fewer than {STUDIED_FROM} prompts are rough.' if few else ''}"


def _share(share: float, interval: Interval | None, of_what: str = " of comparisons") -> str:
    spread = f" (95% interval {percent(interval[0])} to {percent(interval[1])})" if interval else ""
    return f"{percent(share)}{of_what}{spread}"


def _divergence(summary: Summary) -> Finding:
    topic, kl = "Distance from the reference", summary.kl or summary.kl_at_temperature
    if kl is None:
        return Finding(topic, "not measured", "The KL divergence from the reference was not measured.")
    samples = count(kl.samples, "sampled answer")
    name = f"KL divergence{at_temperature(kl.temperature)}"
    sentence = f"The policy moved {number(kl.mean)} nats of {name} per answer away from the reference"
    if kl.mean < 0:
        sentence = f"The {name} from the reference is estimated as {number(kl.mean)} nats per answer"
    explained = f" {NEGATIVE_KL}" if kl.mean < 0 else ""
    if kl.standard_error is None:
        why = "without a standard error, a move is not shown."
        return Finding(topic, "not shown", f"{sentence} ({samples}); {why}{explained}")
    sentence += f" (standard error {number(kl.standard_error)}, {samples})"
    if kl.mean < 1.96 * kl.standard_error:
        within = abs(kl.mean) < 1.96 * kl.standard_error
        why = ": a move is not shown, for zero is within the error." if within else ": a move is not shown."
        return Finding(topic, "not shown", f"{sentence}{why}{explained}")
    return Finding(topic, "note", f"{sentence}.")


def _saving(summary: Summary) -> list[Finding]:
    """Whether the saved files hold what was trained; nothing to say where they hold the weights as trained."""
    share = summary.survived
    if share is None or share.interval is None:
        return []
    topic = f"Saved in {summary.saved_as}"
    spread = f"(95% interval {percent(share.interval[0])} to {percent(share.interval[1])})"
    fact = f"{percent(share.mean)} {spread} of the trained margin is in the saved {summary.saved_as} weights"
    if share.interval[1] - share.interval[0] > 1:
        return [Finding(topic, "not shown", f"{fact}: from so few pairs, or so small a change, nothing can be told.")]
    if share.mean < SURVIVING:
        advice = "Some of the training was lost in rounding: set model.save_dtype to float32"
        return [Finding(topic, "caution", f"{fact}. {advice}.")]
    return [Finding(topic, "note", f"{fact}.")]


def _coherence(summary: Summary) -> Finding:
    topic, before, after = "Coherence", summary.answers_before, summary.answers_after
    if before is None or after is None:
        return Finding(topic, "not measured", "Whether the answers are still coherent was not measured.")
    figures = (
        f"from before to after, length {number(before.tokens)} to {number(after.tokens)} tokens, "
        f"repeated word trigrams {percent(before.repetition)} to {percent(after.repetition)}, "
        f"surprise to the reference {number(before.surprise)} to {number(after.surprise)} nats per token"
    )
    signs = signs_of_decay(before, after)
    if signs:
        sentence = f"Read the answers before believing the figures: they {' and '.join(signs.values())} ({figures})."
        return Finding(topic, "caution", sentence)
    return Finding(topic, "note", f"The answers show no sign of falling apart ({figures}).")


def _log_probabilities(summary: Summary) -> Finding:
    topic = "Log-probabilities"
    chosen, rejected = summary.chosen_logp_change, summary.rejected_logp_change
    measured = {"chosen": chosen, "rejected": rejected}
    changes = {side: change for side, change in measured.items() if change is not None}
    if not changes:
        sentence = "How the held-out completions' log-probabilities changed was not measured."
        return Finding(topic, "not measured", sentence)
    figures = ", ".join(f"{side} {estimated(change)}" for side, change in changes.items())
    figures += " nats per held-out completion"
    named = "answers to imitate" if imitates(summary) else "chosen completions"
    if imitates(summary):
        figures = figures.removeprefix("chosen ")
    if max(abs(change.mean) for change in changes.values()) < STILL:
        advice = "The learning rate is too small, or there were too few steps"
        return Finding(topic, "caution", f"Nothing moved: {figures}. {advice}.")
    if chosen is None:
        return Finding(topic, "note", f"The log-probabilities changed: {figures}.")
    if chosen.interval is None:
        sentence = f"The log-probabilities changed: {figures}; without an interval, an effect is not shown."
        return Finding(topic, "not shown", sentence)
    side = _side(chosen.interval, 0.0)
    if side == 0:
        sentence = f"That the {named} became more or less likely is not shown: {figures}."
        return Finding(topic, "not shown", sentence)
    if side > 0:
        return Finding(topic, "note", f"The {named} became more likely: {figures}.")
    also = rejected is not None and rejected.interval is not None and _side(rejected.interval, 0.0) < 0
    sentence = f"The {named} became less likely{' too' if also else ''}: {figures}."
    return Finding(topic, "caution", f"{sentence} {_advice_on_falling(summary)}")


def _advice_on_falling(summary: Summary) -> str:
    why = "Only the margin between the two is in the loss, so both may fall. " if unit(summary) == "pair" else ""
    return f"{why}Where that harms, lower the learning rate{'' if summary.beta is None else ' or raise beta'}."


def _cost(summary: Summary) -> Finding:
    topic = "Time and memory"
    if summary.seconds is None:
        return Finding(topic, "not measured", "Time and memory were not measured.")
    parts = [f"The run took {duration(summary.seconds)}"]
    training = (summary.stages or {}).get("training")
    if training is not None:
        parts.append(f"{duration(training)} of it in training")
    if summary.pairs_per_second is not None:
        parts.append(f"at {number(summary.pairs_per_second)} {unit(summary)}s per second")
    if summary.peak_memory_gib is not None:
        parts.append(f"with {number(summary.peak_memory_gib)} GiB of memory at the peak")
    return Finding(topic, "note", ", ".join(parts) + ".")


def _side(interval: Interval, null: float) -> int:
    """+1 where the interval lies above the value, -1 below, 0 where it includes it."""
    low, high = interval
    return (low > null) - (high < null)
