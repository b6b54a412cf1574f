"""Does the model know its training pairs better than others?

The same saved weights give the margin on pairs that were trained on and on held-out ones, so that neither the step nor
the arithmetic is between them. Without noise in the labels beta sets no limit to what is learned by heart: theory.pdf,
Proposition 9 (deterministic).
"""

from __future__ import annotations

from tiltlm.report.questions.evidence import Evidence, above, figure, known, too_few, unmeasured
from tiltlm.report.wording import estimated, percent
from tiltlm.runs.question_answers import QuestionAnswer

KEPT = 0.5
"""Share of the margin gained on training pairs that held-out pairs should gain at least: below it, most of what the
training curve shows is known by heart. A rule of thumb; some gap there always is."""

NAME, QUESTION = "overfitting", "Does the model know its training pairs better than others?"


def overfitting(evidence: Evidence) -> QuestionAnswer:
    """The margin on training pairs against that on held-out pairs."""
    evaluation, outcome = evidence.evaluation, evidence.run.outcome
    if evaluation is None or evaluation.seen is None or evaluation.margin is None:
        return unmeasured(NAME, QUESTION, "no training pairs were scored by the saved model")
    if outcome is not None and outcome.status != "completed":
        return unmeasured(NAME, QUESTION, "training did not come to its end, so that not all pairs were seen")
    seen, held_out = evaluation.seen, evaluation.margin
    noun = evidence.noun
    margins = {f"margin_on_training_{noun}s": seen.margin, f"margin_on_held_out_{noun}s": held_out}
    figures = known(**margins, gap=seen.gap) | known(change_of_the_held_out_loss=evaluation.loss_change)
    facts = f"{figure('margin', seen.margin)} on {len(seen.pairs)} training {noun}s, {estimated(held_out)} held out"
    facts += f", {figure('gap', seen.gap)}"
    if not above(seen.gap):
        sentence = f"That it does is not shown: {facts}.{too_few(seen.gap)}"
        return QuestionAnswer(name=NAME, question=QUESTION, verdict="not shown", sentence=sentence, figures=figures)
    share = max(0.0, 1 - seen.gap.mean / seen.growth.mean) if seen.growth.mean > 0 else 0.0
    much = above(seen.growth) and share < KEPT
    also = " The held-out loss ended higher than it began." if above(evaluation.loss_change) else ""
    change = evidence.softer() + f" More {noun}s help, and held-out evaluations on the way show when to stop."
    if evidence.setting("loss", "name") == "sigmoid":
        change += f" Or raise {evidence.option('loss', 'label_smoothing')}, which ends the growth of margins."
    gained = f"held-out {noun}s gained {percent(share)} of the margin that training {noun}s gained"
    return QuestionAnswer(
        name=NAME,
        question=QUESTION,
        verdict="shown",
        sentence=f"It does: {facts}; {gained}.{also}",
        figures=figures,
        change=change if much or also else None,
        line=f"Overfitting: {gained}.{also} {change}" if much else None,
    )
