"""What a sweep shows, in sentences: the highest member with its caveat, what differs, what failed."""

from __future__ import annotations

from collections.abc import Sequence

from tiltlm.config.sweeping import described
from tiltlm.report.course import Finding
from tiltlm.report.differences import LEVEL, ComparedFigure, Difference, Differences
from tiltlm.report.sweep_figures import MemberFigures, interval_words
from tiltlm.report.sweep_plots import on_frontier
from tiltlm.report.wording import count, number, percent, signed
from tiltlm.runs.sweep_folder import SweepRecord

NAMED_AT_MOST = 8
"""Differences that are named in a sentence; the table has them all."""


def sweep_findings(record: SweepRecord, members: list[MemberFigures], found: Differences) -> list[Finding]:
    """The sentences at the top of the page, each true of what was measured and of nothing else."""
    return [
        *_progress(record, members),
        *_highest(members, found),
        *_apart(found),
        *_frontier(members),
    ]


def figure_words(figure: ComparedFigure, value: float) -> str:
    """An amount in the figure's unit: `1.5 percentage points`, `0.3 nats`."""
    return f"{number(figure.scale * value)} {figure.unit}".rstrip()


def _progress(record: SweepRecord, members: list[MemberFigures]) -> list[Finding]:
    done = sum(member.record.status == "completed" for member in members)
    parts = [f"{done} of {count(record.planned, 'member')} came to the end of training"]
    for status, words in (("pruned", "stopped early by the pruner"), ("failed", "failed"), ("interrupted", "stopped")):
        numbers = [member.record.number for member in members if member.record.status == status]
        if numbers:
            parts.append(f"{words}: {_listed(numbers)}")
    left = (
        record.planned - done - sum(member.record.status in ("pruned", "failed", "interrupted") for member in members)
    )
    if left:
        parts.append(f"{left} not begun or at work")
    failed = any(member.record.status == "failed" for member in members)
    return [Finding("Members", "caution" if failed else "note", f"{'; '.join(parts)}.")]


def _highest(members: list[MemberFigures], found: Differences) -> list[Finding]:
    """The member with the highest held-out accuracy, with what that is worth."""
    rated = [
        (member.accuracy, member)
        for member in members
        if member.compared and member.accuracy is not None and member.pairs
    ]
    if len(rated) < 2:
        return []
    best = max(accuracy for accuracy, _ in rated)
    top = [member for accuracy, member in rated if accuracy == best]
    first, numbers = top[0], [member.record.number for member in top]
    who = (
        f"Member {numbers[0]} ({described(first.record.settings)}) has"
        if len(top) == 1
        else f"Members {_listed(numbers)} have"
    )
    low, high = first.accuracy_interval or (0.0, 1.0)
    sentences = [
        f"{who} the highest held-out accuracy, {percent(best)} (95% interval {percent(low)} to {percent(high)})"
    ]
    level = sorted({*numbers[1:], *_level_with(first, [member for _, member in rated], found)})
    if level:
        it = "it" if len(top) == 1 else f"member {numbers[0]}"
        sentences.append(f"Not told apart from {it} beyond chance: {_listed(level)}. So no winner is shown")
    else:
        sentences.append("It is above every other member by more than chance")
    sentences.append(
        f"It is the highest of {len(rated)} figures taken on the same held-out pairs, so chance has helped it: expect "
        "less on pairs that were not used to choose"
    )
    return [Finding("Highest accuracy", "note", ". ".join(sentences) + ".")]


def _level_with(top: MemberFigures, rated: Sequence[MemberFigures], found: Differences) -> list[int]:
    """Members that were compared with one and not shown to be below it; all, where none was compared."""
    level = []
    for member in rated:
        if member is top:
            continue
        difference = found.between("accuracy", top.record.number, member.record.number)
        if difference is None or not difference.shown:
            level.append(member.record.number)
    return level


def _apart(found: Differences) -> list[Finding]:
    """How many differences of each figure are larger than chance, and which are the largest."""
    if not found.figures:
        sentence = "No two members that came to their end share held-out pairs to be compared by."
        return [Finding("Differences", "note", sentence)]
    findings = []
    for figure in found.figures:
        tested = found.of(figure.name)
        shown = sorted((one for one in tested if one.shown), key=lambda one: -abs(one.estimate.mean))
        over = (
            f"over the same {count(figure.examples, 'held-out ' + ('prompt' if figure.name == 'reward' else 'pair'))}"
        )
        if not shown:
            words = f"None of {count(len(tested), 'comparison')} {over} is larger than chance would make it."
        else:
            verb = "is" if len(shown) == 1 else "are"
            named = "; ".join(_in_words(figure, one) for one in shown[:NAMED_AT_MOST])
            more = f"; and {len(shown) - NAMED_AT_MOST} more" if len(shown) > NAMED_AT_MOST else ""
            words = (
                f"{len(shown)} of {count(len(tested), 'comparison')} {over} {verb} larger than chance, by the members' "
                f"numbers: {named}{more}."
            )
        findings.append(Finding(figure.title, "shown" if shown else "not shown", words))
    return findings


def _in_words(figure: ComparedFigure, difference: Difference) -> str:
    """`3 above 1 by 2.1 percentage points (0.4 to 3.9)`."""
    one, other, estimate = difference.one, difference.other, difference.estimate
    mean, interval = estimate.mean, estimate.interval
    if mean < 0:
        one, other, mean = other, one, -mean
        interval = None if interval is None else (-interval[1], -interval[0])
    ends = None if interval is None else (figure.scale * interval[0], figure.scale * interval[1])
    within = "" if ends is None else f" ({interval_words(ends)})"
    return f"{one} above {other} by {figure_words(figure, mean)}{within}"


def _frontier(members: list[MemberFigures]) -> list[Finding]:
    """Members that no other beats in known reward for the same KL or less."""
    both = [member for member in members if member.kl is not None and member.reward_change is not None]
    if len(both) < 2:
        return []
    best = on_frontier(both)
    listed = ", ".join(
        f"{member.record.number} ({signed(member.reward_change.mean)} at {number(member.kl.mean)} nats)"
        for member in best
        if member.reward_change is not None and member.kl is not None
    )
    sentence = (
        f"By the means alone, no other member has more of the reward {both[0].reward} for as little KL or less than: "
        f"{listed}. Their intervals are in the picture below; near points may change places on other prompts."
    )
    return [Finding("Reward against KL", "note", sentence)]


def _listed(numbers: Sequence[int]) -> str:
    """`1, 2 and 3`."""
    *others, last = map(str, numbers)
    return f"{', '.join(others)} and {last}" if others else last


CORRECTION = (
    "Two members are compared pair by pair over the same held-out examples, pairs of one prompt together; chance is "
    "what differences come to when the two are exchanged at random, prompt by prompt. All comparisons on this page are "
    f"corrected together by Holm's method: in at most {LEVEL:.0%} of sweeps is any difference named that is none. "
    "Intervals in brackets are those of each difference alone, 95%. All this is about other prompts of the same kind; "
    "what another seed would change it does not know."
)
"""How differences are told from chance, in words."""
