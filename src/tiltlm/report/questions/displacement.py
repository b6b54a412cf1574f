"""Do the chosen answers become less likely, and does it harm?

The most asked question of all. Only the difference of the two sides is in the loss, so both may fall: theory.pdf,
Proposition 10 (displacement). Where the lost probability goes decides whether it harms: N. Razin et al., arXiv
2410.08847, show it going to answers of the opposite meaning; A. Pal et al., arXiv 2402.13228, where the two answers of
a pair differ in few tokens.
"""

from __future__ import annotations

from tiltlm.report.questions.drift import signs_of_worse
from tiltlm.report.questions.evidence import Evidence, above, below, figure, known, too_few, unmeasured
from tiltlm.report.wording import number
from tiltlm.runs.question_answers import QuestionAnswer

HARM_PER_TOKEN = 0.1
"""Nats that a chosen answer's token loses on average, from which on the loss is called harmful by itself: every token a
tenth less likely, an answer of 50 tokens 150 times less likely. A rule of thumb."""

NAME, QUESTION = "displacement", "Do the chosen answers become less likely, and does it harm?"


def displacement(evidence: Evidence) -> QuestionAnswer:
    """Likelihood displacement, held out: both sides, per answer and per token, and whether harm is shown."""
    evaluation = evidence.evaluation
    if evaluation is None or evaluation.chosen_logp_change is None:
        return unmeasured(NAME, QUESTION, "there are no held-out chosen answers with log-probabilities")
    chosen, rejected = evaluation.chosen_logp_change, evaluation.rejected_logp_change
    by_token = (evaluation.chosen_token_change, evaluation.rejected_token_change)
    figures = known(
        chosen_nats_an_answer=chosen,
        rejected_nats_an_answer=rejected,
        chosen_nats_a_token=by_token[0],
        rejected_nats_a_token=by_token[1],
    )
    facts = f"{figure('chosen', chosen)}, {figure('rejected', rejected)} nats an answer"
    if by_token[0] is not None:
        facts += f"; {figure('chosen', by_token[0])}, {figure('rejected', by_token[1])} nats a token"
    if not below(chosen):
        fact = "That the held-out chosen answers became less likely is not shown"
        sentence = f"{'They became more likely' if above(chosen) else fact}: {facts}.{too_few(chosen)}"
        return QuestionAnswer(name=NAME, question=QUESTION, verdict="not shown", sentence=sentence, figures=figures)
    worse = [sign.words for sign in signs_of_worse(evidence)]
    lost = []
    if by_token[0] is not None and below(by_token[0], -HARM_PER_TOKEN):
        lost = [f"lost {number(-by_token[0].mean)} nats a token"]
    harm = f"It harms: they {lost[0]}." if lost else ""
    harm += f"{' ' if harm else ''}It goes with answers that {' and '.join(worse)}." if worse else ""
    alike = " Pairs whose answers differ in few tokens are the ones it is known from." if evidence.paired else ""
    return QuestionAnswer(
        name=NAME,
        question=QUESTION,
        verdict="shown",
        sentence=f"The held-out chosen answers became less likely: {facts}. {harm or 'That it harms is not shown.'}",
        figures=figures,
        change=evidence.softer() + alike,
        line=f"That the chosen answers became less likely harms: they {lost[0]}. {evidence.softer()}" if lost else None,
    )
