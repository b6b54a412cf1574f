"""Who wrote the pairs: the model itself, the model at another temperature, or others?

DPO's optimum does not ask, but with finitely many labels, restricted classes and answers that no pair holds it matters:
theory.pdf, eq. 23 (efficiency) and what stands around it. What log-probabilities tell: Proposition 18 (surprise), which
detects others and acquits nobody; how the figures here do so is in `evaluation/origin_figures.py`. Weights:
Propositions 16 (wpo) and 19 (effective).
"""

from __future__ import annotations

from typing import Literal

from tiltlm.report.questions.evidence import (
    Evidence,
    above,
    below,
    figure,
    known,
    one_of,
    tells,
    too_few,
    unmeasured,
    within,
)
from tiltlm.report.wording import number, percent
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.pair_origins import PairOrigins
from tiltlm.runs.question_answers import QuestionAnswer

MISFIT = 0.1
"""By how much the scatter of surprise may differ from what is expected before the model is ruled out, beyond chance.
Answers of the embedded model itself, at temperatures from 0.5 to 1.5, cut and selected ones among them, came to 0.95 to
1.01 (tokens) and 0.95 to 1.07 (answers); those of people and of other models to 0.82 to 1.22 and to 1.5 to 5.4
(benchmarks/results/pair-origins/told)."""
GAP = 0.2
"""Nats a token by which answers that fit temperature 1 may differ from the model's own samples. Cutting the model's own
answers at a sentence's end adds up to 0.14: an end that comes as a surprise of 4.4 nats in 32 tokens. What people wrote
differed by up to 0.8 (benchmarks/results/pair-origins)."""
SAME = 0.1
"""How near to 1 the temperature must surely be to be the model's own: one step of what is set by hand."""
SCATTERS = 3
"""Signs of the scatter: of tokens more or less than expected, of answers more. Each must be clear by an interval of
96.7%, as any of them is enough."""
WORTH = 0.5
"""Effective share of the weights below which training is said to have moved away from its pairs: half of them."""
RARE = 0.5
"""Share of the answers that the model could have said, below which the console says so: most of them are out of its
reach."""

NAME, QUESTION, CAVEAT = (
    "origins",
    "Did others than the model write the answers it learns from?",
    "Equal surprise does not prove the same author, and a label selects between answers.",
)

Author = Literal["the model", "the model at another temperature", "others", "unclear"]
"""Who is shown to have written answers."""


def author(origins: PairOrigins) -> Author:
    """Who is shown to have written the answers; `others` includes the model, sampled other than by a temperature."""
    highest = origins.temperatures_tried[1]
    temperature = origins.temperature
    if not tells(temperature) or not tells(origins.gap):
        return "unclear"
    tokens, answers = one_of(origins.token_scatter, SCATTERS), one_of(origins.answer_scatter, SCATTERS)
    # That answers scatter less than expected is left out: no author is known from it.
    misfit = below(tokens, 1 - MISFIT) or above(tokens, 1 + MISFIT) or above(answers, 1 + MISFIT)
    another = below(temperature, 1 - SAME) or above(temperature, 1 + SAME)
    apart = not another and (below(origins.gap, -GAP) or above(origins.gap, GAP))
    if misfit or apart or temperature.mean >= highest:
        return "others"
    if another:
        return "the model at another temperature"
    return "the model" if _near_one(temperature) else "unclear"


def authorship(evidence: Evidence) -> QuestionAnswer:
    """Surprise against the model's own samples, the temperature that fits, and what the weights are worth."""
    origins = evidence.run.origins
    if origins is None:
        return unmeasured(NAME, QUESTION, _why_not(evidence))
    found, temperature = author(origins), origins.temperature
    begun = {
        "others": "Others did, or its own answers were sampled, cut or selected in ways that no temperature explains",
        "the model at another temperature": f"That others did is not shown: {_at(origins)}",
        "the model": "That others did is not shown: they look like its own at temperature 1",
        "unclear": "That others did is not shown, nor that the model did",
    }[found]
    sentence = f"{begun}: {_facts(origins)}.{_worth(evidence)} {CAVEAT}{too_few(origins.gap, temperature)}"
    out_of_reach = found == "others" and below(origins.sayable, RARE)
    change = _advice(evidence, origins, found)
    said = f"The model could have said {percent(origins.sayable.mean)} of the {evidence.noun}s' answers itself"
    return QuestionAnswer(
        name=NAME,
        question=QUESTION,
        verdict="shown" if found == "others" else "not shown",
        sentence=sentence,
        figures=_figures(evidence, origins),
        change=change,
        line=f"{said}. {change}" if out_of_reach else None,
    )


def _near_one(temperature: Estimate) -> bool:
    return within(Estimate(0.0, _less_one(temperature), temperature.clusters), SAME)


def _less_one(temperature: Estimate) -> tuple[float, float] | None:
    return None if temperature.interval is None else (temperature.interval[0] - 1, temperature.interval[1] - 1)


def _at(origins: PairOrigins) -> str:
    least = origins.temperature.mean <= origins.temperatures_tried[0]
    about = "at most" if least else "about"
    return f"the model at a temperature of {about} {origins.temperature.mean:.2f} would write so"


def _facts(origins: PairOrigins) -> str:
    sides = {"chosen": origins.chosen, "rejected": origins.rejected, "its own samples": origins.own}
    surprise = ", ".join(f"{name} {number(side.mean)}" for name, side in sides.items() if side is not None)
    facts = (
        f"surprise in nats a token: {surprise}; {figure('gap to its own', origins.gap)}",
        f"likeliest temperature {_plain(origins.temperature)}, at which the surprise scatters "
        f"{_plain(origins.token_scatter)} times as expected of tokens, {_plain(origins.answer_scatter)} of answers",
        f"at temperature 1 it could have said {_share(origins.sayable)} of the answers",
    )
    return f"{'; '.join(facts)}, and {percent(origins.own_sayable.mean)} of its own"


def _plain(estimate: Estimate) -> str:
    low, high = estimate.interval or (estimate.mean, estimate.mean)
    return f"{number(estimate.mean)} (95% interval {number(low)} to {number(high)})"


def _share(share: Estimate) -> str:
    low, high = share.interval or (0.0, 1.0)
    return f"{percent(share.mean)} (95% interval {percent(low)} to {percent(high)})"


def _worth(evidence: Evidence) -> str:
    """What weights make of the examples, before training and after."""
    origins, noun = evidence.run.origins, evidence.noun
    seen = None if evidence.evaluation is None else evidence.evaluation.seen
    if origins is None:
        return ""
    words = f" Weighed as by WPO, the {noun}s are worth {percent(origins.aligned.mean)} of their number"
    if seen is None or seen.weights is None:
        return f"{words}."
    moved, aligned = seen.weights.moved, seen.weights.aligned
    words += f" before training and {percent(aligned.mean)} after; by how far training moved the model, "
    words += f"at most {_share(moved)}."
    return words + (" It has moved away from them." if below(moved, WORTH) else "")


def _advice(evidence: Evidence, origins: PairOrigins, found: Author) -> str | None:
    """What it means for the run, and what to do about it."""
    noun, seen = evidence.noun, None if evidence.evaluation is None else evidence.evaluation.seen
    anew = "let the model answer and judge that: tiltlm sample, tiltlm judge, tiltlm pair"
    if found == "others":
        words = (
            f"The margin is of answers that others gave, and where the model's own go is not in the loss: go by the "
            f"sampled answers, and by whether the chosen ones become less likely. For {noun}s of its own, {anew}."
        )
        other = evidence.paired and evidence.setting("loss", "name") != "wpo"
        return words + (f" Or take loss.name wpo, which counts {noun}s by how likely it is to say them." * other)
    if found == "the model at another temperature":
        more = "holds what it seldom says" if origins.temperature.mean > 1 else "lacks its rarer answers"
        return f"Of what it says at temperature 1 the data {more}. To learn from that, {anew}."
    if seen is not None and seen.weights is not None and below(seen.weights.moved, WORTH):
        return f"To go on, {anew}."
    return None


def _figures(evidence: Evidence, origins: PairOrigins) -> dict[str, Estimate]:
    seen = None if evidence.evaluation is None else evidence.evaluation.seen
    weights = None if seen is None else seen.weights
    return known(
        surprise_of_chosen_in_nats_a_token=origins.chosen,
        surprise_of_rejected_in_nats_a_token=origins.rejected,
        surprise_of_its_own_samples_in_nats_a_token=origins.own,
        gap_in_nats_a_token=origins.gap,
        chosen_less_own_in_nats_a_token=origins.chosen_minus_own,
        rejected_less_own_in_nats_a_token=origins.rejected_minus_own,
        likeliest_temperature=origins.temperature,
        scatter_of_tokens=origins.token_scatter,
        scatter_of_answers=origins.answer_scatter,
        share_that_it_could_have_said=origins.sayable,
        share_of_its_own_that_it_could_have_said=origins.own_sayable,
        effective_share_of_WPO_weights_before_training=origins.aligned,
        effective_share_of_WPO_weights=None if weights is None else weights.aligned,
        effective_share_of_weights_for_what_training_moved=None if weights is None else weights.moved,
    )


def _why_not(evidence: Evidence) -> str:
    comparison = evidence.run.comparison
    asked = comparison is not None and any(prompt.counted and prompt.before.samples for prompt in comparison.prompts)
    if not asked:
        return "no answers to held-out prompts were sampled, so none of the model's own were drawn to compare with"
    return "the run's files do not record it, or no training prompt leaves the model room to answer"
