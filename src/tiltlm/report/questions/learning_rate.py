"""Does the learning rate do nothing, or too much?

That nothing happened is shown where intervals lie within what nobody would notice: an effect that was looked for and is
absent, not one that was missed. The DPO paper trains with 1e-6 (R. Rafailov et al., arXiv 2305.18290, appendix B).
"""

from __future__ import annotations

from tiltlm.report.questions.evidence import Evidence, above, below, figure, known, too_few, unmeasured, within
from tiltlm.report.verdict import STILL
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.outcomes import Evaluation
from tiltlm.runs.question_answers import QuestionAnswer

LITTLE = 0.1
"""Nats that a whole answer's log-probability may change without anybody noticing: its odds by a tenth."""
COLLAPSED = 1.0
"""Nats a token that both sides lose, from which on the model is said to have lost its language: every token less than
half as likely, in answers that were preferred and in those that were not."""
NOT_FINITE = "is not finite"
"""The words in which a run says that loss or gradient are not numbers."""

NAME, QUESTION = "learning rate", "Does the learning rate do nothing, or too much?"


def learning_rate(evidence: Evidence) -> QuestionAnswer:
    """Whether training moved the held-out answers at all, and whether it broke what it was given."""
    outcome, evaluation = evidence.run.outcome, evidence.evaluation
    rate = evidence.option("training", "learning_rate")
    if outcome is not None and outcome.status == "failed" and NOT_FINITE in (outcome.message or ""):
        return QuestionAnswer(
            name=NAME,
            question=QUESTION,
            verdict="shown",
            sentence="Too much, or the arithmetic is too coarse: loss or gradient were no longer numbers.",
            change=f"Lower {rate}; or set model.precision to float32, if it is not.",
        )
    if evaluation is None or evaluation.chosen_logp_change is None:
        return unmeasured(NAME, QUESTION, "how both sides' log-probabilities changed is not known")
    chosen, rejected = evaluation.chosen_logp_change, evaluation.rejected_logp_change
    if rejected is None and not evidence.imitates:
        return unmeasured(NAME, QUESTION, "how both sides' log-probabilities changed is not known")
    own = None if evaluation.seen is None else evaluation.seen.loss_change
    figures = known(
        chosen_nats_an_answer=chosen,
        rejected_nats_an_answer=rejected,
        change_of_the_loss_on_training_pairs=own,
        change_of_the_held_out_loss=evaluation.loss_change,
    )
    sides = {"chosen": chosen, "rejected": rejected} if rejected is not None else {"log-probability": chosen}
    facts = f"{', '.join(figure(*side) for side in sides.items())} nats a held-out answer"
    if all(within(side, LITTLE) for side in sides.values()):
        told = max(abs(side.mean) for side in sides.values()) < STILL
        change = f"Raise {rate}, or take more steps: {evidence.option('training', 'epochs')}."
        line = None if told else f"Training did next to nothing: {facts}. {change}"
        sentence = (
            f"It does next to nothing: {facts}, {'both ' if rejected is not None else ''}surely less than {LITTLE}."
        )
        return QuestionAnswer(
            name=NAME, question=QUESTION, verdict="shown", sentence=sentence, figures=figures, change=change, line=line
        )
    broken = _broken(evaluation, own)
    if broken:
        change = f"Lower {rate}, for instance tenfold, or warm up: {evidence.option('training', 'warmup_steps')}."
        return QuestionAnswer(
            name=NAME,
            question=QUESTION,
            verdict="shown",
            sentence=f"It does too much: {' and '.join(broken)} ({facts}).",
            figures=figures,
            change=change,
            line=f"The learning rate does too much: {' and '.join(broken)}. {change}",
        )
    sentence = f"Neither is shown: {facts}.{too_few(*sides.values())}"
    return QuestionAnswer(name=NAME, question=QUESTION, verdict="not shown", sentence=sentence, figures=figures)


def _broken(evaluation: Evaluation, own: Estimate | None) -> list[str]:
    """What training destroyed, where that is shown."""
    found = []
    if own is not None and above(own):
        found.append(f"the loss of the pairs it was trained on rose ({figure('by', own)})")
    sides = (evaluation.chosen_token_change, evaluation.rejected_token_change)
    if all(side is not None and below(side, -COLLAPSED) for side in sides):
        found.append(f"chosen and rejected answers both lost more than {COLLAPSED:g} nat a token")
    return found
