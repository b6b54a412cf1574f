"""Do the labels look noisy?

A pair that was trained on, and that the model still ranks firmly the other way, has a label that other pairs speak
against. Two things tell such pairs from those that were not learned yet. The margins have two peaks, one on either
side, and little between: what is not learned yet lies around zero. Or the model contradicts more labels than it expects
to: by Bradley and Terry a margin m gives the label the probability sigmoid(m) (theory.pdf, eq. 6 (bradley-terry)).
Either may also be a rule that the model cannot see. Noise that was learned by heart leaves no such pairs: see
overfitting. What to do about noise: E. Mitchell, https://ericmitchell.ai/cdpo.pdf.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from tiltlm.report.questions.evidence import FEWEST, Evidence, above, known, unmeasured
from tiltlm.report.wording import percent
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.question_answers import QuestionAnswer
from tiltlm.runs.seen_pairs import SeenPair
from tiltlm.statistics import effective_number, wilson_interval

BESIDE = 0.5
"""Half the width of the middle, in typical (median) margins. Of margins with one peak, at or above zero, no stretch of
that width below the middle holds more than the middle does; of margins with a peak on either side it does."""
CONFIDENT = math.log(3)
"""Margin, in beta times nats, from which on the model is said to be firm: it gives one answer three chances in four."""
LISTED = 10
"""How many pairs are named to be looked at, the most contradicted first."""

NAME, QUESTION = "label noise", "Do the labels look noisy?"


def label_noise(evidence: Evidence) -> QuestionAnswer:
    """How many training pairs the model is against, and whether there are more than learning has left."""
    evaluation = evidence.evaluation
    if evaluation is None or evaluation.seen is None or not evaluation.seen.pairs:
        return unmeasured(NAME, QUESTION, "no training pairs were scored by the saved model")
    pairs = evaluation.seen.pairs
    typical = statistics.median(abs(pair.margin) for pair in pairs)
    against = sorted((pair for pair in pairs if pair.margin < -BESIDE * typical), key=lambda pair: pair.margin)
    accuracy = evaluation.figures.accuracy_interval
    learned = accuracy is not None and accuracy[0] > 0.5
    share, peaks = _share(against, pairs), _second_peak(pairs, typical)
    # Only of this objective is the margin the log-odds of the label.
    contradicted, expected = _firm(pairs) if evidence.setting("loss", "name") == "sigmoid" else (None, 0.0)
    two_peaks, too_many = learned and above(peaks, 0.5), contradicted is not None and above(contradicted, expected)
    figures = known(
        **{
            f"share_of_training_{evidence.noun}s_against_their_label": share,
            f"share_of_these_beside_{evidence.noun}s_around_zero": peaks,
            f"share_of_firm_{evidence.noun}s_against_their_label": contradicted,
        },
        share_that_the_model_expects=None if contradicted is None else Estimate(expected, None, contradicted.clusters),
    )
    facts = f"the model ranks {_shared(share)} of {len(pairs)} training {evidence.noun}s firmly against their label"
    if contradicted is not None and too_many:
        facts += f"; of those that it is sure of, {_shared(contradicted)}, where it expects {percent(expected)}"
    if two_peaks:
        facts += ", with few between them and the others"
    if not (two_peaks or too_many):
        few = f" Fewer than {FEWEST} prompts show nothing." if (share.clusters or 0) < FEWEST else ""
        why = "" if learned else ", and it is not shown to have learned from the others"
        sentence = f"That they do is not shown: {facts}{why}.{few}"
        return QuestionAnswer(name=NAME, question=QUESTION, verdict="not shown", sentence=sentence, figures=figures)
    change = _advice(evidence)
    return QuestionAnswer(
        name=NAME,
        question=QUESTION,
        verdict="shown",
        sentence=f"They do, or there is a rule that the model cannot see: {facts}.",
        figures=figures,
        change=change,
        line=f"The labels look noisy: {facts}. {change}",
        ids=tuple(pair.id for pair in against[:LISTED]),
    )


def _share(some: Sequence[SeenPair], of: Sequence[SeenPair]) -> Estimate:
    """Which share some pairs are of others, by Wilson's interval over prompts."""
    trials, share = effective_number([pair.prompt for pair in of]), len(some) / len(of)
    return Estimate(share, wilson_interval(share * trials, trials), int(trials))


def _second_peak(pairs: Sequence[SeenPair], typical: float) -> Estimate | None:
    """Of pairs in the middle and in as wide a stretch below it, the share below; None where there are none."""
    middle = [pair for pair in pairs if abs(pair.margin) <= BESIDE * typical]
    below = [pair for pair in pairs if -3 * BESIDE * typical < pair.margin < -BESIDE * typical]
    return _share(below, [*below, *middle]) if typical > 0 and (below or middle) else None


def _firm(pairs: Sequence[SeenPair]) -> tuple[Estimate | None, float]:
    """Of pairs that the model is sure of, the share against their label, and the share that it expects."""
    firm = [pair for pair in pairs if abs(pair.margin) >= CONFIDENT]
    if not firm:
        return None, 0.0
    odds = [math.exp(-abs(pair.margin)) for pair in firm]
    expected = sum(odd / (1 + odd) for odd in odds) / len(firm)
    return _share([pair for pair in firm if pair.margin < 0], firm), expected


def _shared(share: Estimate) -> str:
    low, high = share.interval or (0.0, 1.0)
    return f"{percent(share.mean)} (95% interval {percent(low)} to {percent(high)})"


def _advice(evidence: Evidence) -> str:
    ways = ["mend or drop them"]
    if evidence.setting("loss", "name") == "sigmoid":
        ways.append(f"raise {evidence.option('loss', 'label_smoothing')} towards their share")
    if evidence.setting("loss", "beta") is not None:
        ways.append(f"raise {evidence.option('loss', 'beta')}")
    return f"Look at the {evidence.noun}s that the report lists: {', or '.join(ways)}."
