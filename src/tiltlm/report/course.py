"""How a run went: that it was stopped, or went on, what came before it, and which of its checks failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tiltlm.report.wording import count
from tiltlm.runs.outcomes import Summary

Status = Literal["shown", "not shown", "not measured", "caution", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a reader asks about a run, how far it is answered, and the answer."""

    topic: str
    status: Status
    sentence: str


def course(summary: Summary) -> list[Finding]:
    """What is to be known of a run's course before its figures are read."""
    return [*_interruption(summary), *_resumption(summary), *_stages(summary), *_failed_checks(summary)]


_ENDS = {"interrupted": "The run was interrupted", "failed": "The run failed", "killed": "The run did not end"}


def _interruption(summary: Summary) -> list[Finding]:
    if summary.completed:
        return []
    ended = _ENDS.get(summary.status or "interrupted", "The run ended")
    after = f" after {count(summary.steps, 'step')}" if summary.steps is not None else ""
    why = f" ({summary.message.rstrip('.')})" if summary.message else ""
    sentence = f"{ended}{after}{why}; what figures there are, are those of the model that was saved."
    return [Finding("Completion", "caution", sentence)]


def _resumption(summary: Summary) -> list[Finding]:
    if not summary.resumed:
        return []
    steps = ", ".join(str(resumption.step) for resumption in summary.resumed)
    others = list(dict.fromkeys(other for resumption in summary.resumed for other in resumption.differences))
    sentence = f"The run was stopped and went on, after step {steps}"
    if others:
        return [Finding("Going on", "caution", f"{sentence}, with something else than before: {'; '.join(others)}.")]
    but = "" if all(one.repeatable for one in summary.resumed) else ", but for rounding (training.deterministic)"
    return [Finding("Going on", "note", f"{sentence}, as if it had not been stopped{but}.")]


def _stages(summary: Summary) -> list[Finding]:
    if not summary.earlier:
        return []
    names = ", ".join(f"{stage.name} (`{stage.loss}`, {count(stage.steps or 0, 'step')})" for stage in summary.earlier)
    sentence = f"Before this stage came {names}: here, before training is after those, and so is the reference."
    return [Finding("Stages", "note", sentence)]


def _failed_checks(summary: Summary) -> list[Finding]:
    return [
        Finding("Start-up check", "caution", f"The start-up check `{check.name}` failed: {check.detail}.")
        for check in summary.checks or ()
        if not check.passed
    ]
