"""The table of questions, and the answers of a run to all of them."""

from __future__ import annotations

from collections.abc import Callable

from tiltlm.report.questions.authorship import authorship
from tiltlm.report.questions.displacement import displacement
from tiltlm.report.questions.drift import drift
from tiltlm.report.questions.evidence import Evidence
from tiltlm.report.questions.label_noise import label_noise
from tiltlm.report.questions.learning_rate import learning_rate
from tiltlm.report.questions.overfitting import overfitting
from tiltlm.report.questions.step_zero import step_zero
from tiltlm.runs.question_answers import QuestionAnswer
from tiltlm.runs.run_files import RunFiles

QUESTIONS: tuple[Callable[[Evidence], QuestionAnswer], ...] = (
    displacement,
    drift,
    overfitting,
    learning_rate,
    label_noise,
    step_zero,
    authorship,
)
"""One function a question, in the order of the page; `docs/questions.md` has what each rests on."""


def answers(run: RunFiles) -> tuple[QuestionAnswer, ...]:
    """What a run answers to what is asked of every run."""
    evidence = Evidence.of(run)
    # Of demonstrations none are compared, and there is no reference.
    asked = (drift, learning_rate) if evidence.imitates else QUESTIONS
    return tuple(question(evidence) for question in asked)
