"""Does the reference disagree with the model before the first step?

Then rewards are not zero at the start, the first loss is not what it should be, and part of every accuracy and margin
was there before training: what the threads eric-mitchell/direct-preference-optimization#34 and huggingface/trl#744 are
about. Where the reference is the model as loaded, the start-up checks hold both to the noise of the arithmetic.
"""

from __future__ import annotations

from tiltlm.report.questions.evidence import Evidence, above, figure, known, too_few, unmeasured
from tiltlm.report.wording import number
from tiltlm.runs.question_answers import QuestionAnswer

APART = 1e-4
"""Nats a token that policy and reference may be apart in float32: the order of sums, and nothing else. The limit of the
start-up checks, too."""

NAME, QUESTION = "step 0", "Does the reference disagree with the model before the first step?"


def step_zero(evidence: Evidence) -> QuestionAnswer:
    """How far policy and reference were apart on held-out answers before training, in float32."""
    evaluation = evidence.evaluation
    if evaluation is None or evaluation.start_gap is None:
        return unmeasured(NAME, QUESTION, "the objective has no reference, or its values are not in the run's files")
    gap, margin = evaluation.start_gap, evaluation.start_margin
    figures = known(nats_a_token_apart=gap, margin_at_step_0=margin)
    low, high = gap.interval or (gap.mean, gap.mean)
    facts = f"{number(gap.mean)} nats a token apart (95% interval {number(low)} to {number(high)}) on held-out answers"
    if not above(gap, APART):
        sentence = f"That it does is not shown: {facts}, in float32.{too_few(gap)}"
        return QuestionAnswer(name=NAME, question=QUESTION, verdict="not shown", sentence=sentence, figures=figures)
    start = "" if margin is None else f", {figure('margin', margin)} before any training"
    change = (
        f"If that is not meant, unset {evidence.option('model', 'reference')}: the reference is then the model as "
        "loaded. If it is, read margins and accuracy against those at step 0."
    )
    return QuestionAnswer(
        name=NAME,
        question=QUESTION,
        verdict="shown",
        sentence=f"It does: {facts}{start}.",
        figures=figures,
        change=change,
        line=f"Policy and reference disagreed at step 0: {facts}{start}. {change}",
    )
