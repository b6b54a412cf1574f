"""What people ask of every run, and the run's own answers: a part of `summary.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tiltlm.runs.estimates import Estimate

Verdict = Literal["shown", "not shown", "not measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionAnswer:
    """A question and its answer.

    name: the question's, in one word or two. question: in full.
    verdict: `shown` where what is asked about is clear of chance, `not shown` where it may be nothing, `not measured`
        where the run has no figures to tell it by.
    figures: what the answer rests on, by what each is, with its unit.
    change: which option to change, or what to look at; None where there is no need.
    line: what the console says of it at the run's end; None where it matters little, or was said in other words.
    ids: examples to look at.
    """

    name: str
    question: str
    verdict: Verdict
    sentence: str
    figures: dict[str, Estimate] = field(default_factory=dict)
    change: str | None = None
    line: str | None = None
    ids: tuple[str, ...] = ()
