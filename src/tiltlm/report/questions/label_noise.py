"""Do the labels look noisy?

A pair that was trained on, and that the model still ranks firmly the other way, has a label that other pairs speak
against. How many there should be the model says itself: by Bradley and Terry, a margin m gives the label the
probability sigmoid(m) (theory.pdf, eq. 6 (bradley-terry)). More of them than that is noise, or a rule that the model
cannot see. What to do about noise: E. Mitchell, https://ericmitchell.ai/cdpo.pdf.
"""

from __future__ import annotations

import math

from tiltlm.report.questions.evidence import FEWEST, Evidence, above, known, unmeasured
from tiltlm.report.wording import percent
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.question_answers import QuestionAnswer
from tiltlm.runs.seen_pairs import SeenPair
from tiltlm.statistics import effective_number, wilson_interval

CONFIDENT = math.log(3)
"""Margin, in beta times nats, from which on the model is said to be firm: it gives one answer three chances in four."""
LISTED = 10
"""How many pairs are named to be looked at, the most contradicted first."""

NAME, QUESTION = "label noise", "Do the labels look noisy?"


def label_noise(evidence: Evidence) -> QuestionAnswer:
    """How many training pairs the model is firmly against, beside how many it expects to be."""
    name, seen = evidence.setting("loss", "name"), None if evidence.evaluation is None else evidence.evaluation.seen
    if seen is None:
        return unmeasured(NAME, QUESTION, "no training pairs were scored by the saved model")
    if name != "sigmoid":
        return unmeasured(NAME, QUESTION, f"the margins of {name} are not the log-odds of a label")
    firm = [pair for pair in seen.pairs if abs(pair.margin) >= CONFIDENT]
    of_all = f"{len(firm)} of {len(seen.pairs)} training pairs"
    against = sorted((pair for pair in firm if pair.margin < 0), key=lambda pair: pair.margin)
    if not firm:
        return QuestionAnswer(
            name=NAME,
            question=QUESTION,
            verdict="not shown",
            sentence=f"That they do is not shown: the model is firm about none of {len(seen.pairs)} training pairs.",
        )
    share, expected = _shares(firm, against)
    figures = known(share_of_firm_pairs_against_their_label=share) | {
        "share that the model expects": Estimate(expected, None, share.clusters)
    }
    facts = f"the model is firm about {of_all}, and against the label in {percent(share.mean)} of them"
    if share.interval is not None:
        facts += f" (95% interval {percent(share.interval[0])} to {percent(share.interval[1])})"
    facts += f", where it expects {percent(expected)}"
    if not above(share, expected):
        few = f" Fewer than {FEWEST} prompts show nothing." if (share.clusters or 0) < FEWEST else ""
        sentence = f"That they do is not shown: {facts}.{few}"
        return QuestionAnswer(name=NAME, question=QUESTION, verdict="not shown", sentence=sentence, figures=figures)
    smoothing = f"raise {evidence.option('loss', 'label_smoothing')} towards the share of wrong labels"
    change = (
        f"Look at the pairs listed; then mend or drop them, {smoothing}, or raise {evidence.option('loss', 'beta')}."
    )
    return QuestionAnswer(
        name=NAME,
        question=QUESTION,
        verdict="shown",
        sentence=f"They do: {facts}.",
        figures=figures,
        change=change,
        line=f"The labels look noisy: {facts}. {change}",
        ids=tuple(pair.id for pair in against[:LISTED]),
    )


def _shares(firm: list[SeenPair], against: list[SeenPair]) -> tuple[Estimate, float]:
    """The share of firm pairs that the model is against, and the share that its own probabilities come to."""
    trials = effective_number([pair.prompt for pair in firm])
    share = len(against) / len(firm)
    expected = sum(1 / (1 + math.exp(abs(pair.margin))) for pair in firm) / len(firm)
    return Estimate(share, wilson_interval(share * trials, trials), int(trials)), expected
