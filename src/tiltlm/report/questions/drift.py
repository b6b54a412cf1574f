"""Does reward accuracy rise while the answers get longer or worse?

The accuracy is that of the implicit reward on given pairs; what the model says is another matter. R. Park et al.,
arXiv 2403.19159, link DPO's exploitation of length to answers unlike those of the pairs; R. Rafailov et al., arXiv
2406.02900, see quality fall as the KL divergence grows, often within the first pass. How a bias to length is
multiplied: theory.pdf, Proposition 11 (length).
"""

from __future__ import annotations

from dataclasses import dataclass

from tiltlm.report.coherence import signs_of_decay
from tiltlm.report.questions.evidence import Evidence, above, below, figure, known, one_of, too_few, unmeasured
from tiltlm.report.wording import number, percent
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.outcomes import Figures
from tiltlm.runs.question_answers import QuestionAnswer
from tiltlm.statistics import Z_95

LONGER = 0.2
"""By which share of their length before answers must have grown to be called longer: readers notice a fifth."""
MORE_REPETITION = 0.05
"""Rise in the share of repeated word trigrams from which on answers are called repetitive: one in twenty."""
MORE_SURPRISE = 0.5
"""Rise of the surprise to the reference from which on answers are called unlikely to it, in nats a token."""
CAPPED = 0.9
"""Share of comparison.max_new_tokens which answers fill on average from where on they may be cut short by it."""

SIGNS = 4
"""Signs that are looked for: length, repetition, surprise, known reward. Each must be clear by an interval of 97.5%,
wider than the one that is written, so that chance alone makes one run in twenty show any of them."""

NAME, QUESTION, WITHOUT_REWARDS = (
    "drift",
    "Does reward accuracy rise while the answers get longer or worse?",
    "Does the loss fall while the answers get longer or worse?",
)


@dataclass(frozen=True, slots=True)
class Sign:
    """A shown sign of answers drifting off. told: whether the verdict says it already, of the means alone."""

    words: str
    told: bool


def drift(evidence: Evidence) -> QuestionAnswer:
    """Length, repetition, surprise and known reward of the answers, prompt by prompt, and the KL paid."""
    shown, question = evidence.answers, WITHOUT_REWARDS if evidence.imitates else QUESTION
    if shown.length_change is None:
        return unmeasured(NAME, question, "no answers to held-out prompts were sampled")
    length = _longer(shown)
    signs = length + signs_of_worse(evidence)
    facts = (
        f"{figure('length', shown.length_change)} tokens, {figure('repetition', shown.repetition_change)}, "
        f"{figure('surprise', shown.surprise_change)} nats a token{_paid(shown)}"
    )
    accuracy, rose = _accuracy(evidence)
    figures = _figures(evidence)
    if not signs:
        sentence = f"That the answers got longer or worse is not shown: {facts}; {accuracy}.{_capped(evidence)}"
        sentence += too_few(shown.length_change)
        return QuestionAnswer(name=NAME, question=question, verdict="not shown", sentence=sentence, figures=figures)
    joint, change = "while" if rose else "and", evidence.softer() + (_shorter(evidence) if length else "")
    new = [sign.words for sign in signs if not sign.told]
    return QuestionAnswer(
        name=NAME,
        question=question,
        verdict="shown",
        sentence=f"The answers {_joined(signs)}, {joint} {accuracy}: {facts}.{_capped(evidence)}",
        figures=figures,
        change=change,
        line=f"The answers {' and '.join(new)}, {joint} {accuracy}. {change}" if new else None,
    )


def signs_of_worse(evidence: Evidence) -> list[Sign]:
    """How the sampled answers got worse, where that is shown; length is no such sign."""
    shown = evidence.answers
    told = signs_of_decay(shown.answers_before, shown.answers_after)
    signs = []
    if shown.reward_difference is not None and below(one_of(shown.reward_difference, SIGNS)):
        signs.append(Sign(f"lost {number(-shown.reward_difference.mean)} of the known reward", True))
    if _rose(shown.repetition_change, MORE_REPETITION):
        signs.append(Sign("repeat themselves more", "repetition" in told))
    if _rose(shown.surprise_change, MORE_SURPRISE):
        signs.append(Sign("became unlikely to the reference", "surprise" in told))
    return signs


def _longer(shown: Figures) -> list[Sign]:
    before = None if shown.answers_before is None else shown.answers_before.tokens
    if before is None or shown.length_change is None or not _rose(shown.length_change, LONGER * before):
        return []
    by = f"became {percent(shown.length_change.mean / before)} longer" if before else "are no longer empty"
    return [Sign(by, "longer" in signs_of_decay(shown.answers_before, shown.answers_after))]


def _rose(change: Estimate | None, least: float) -> bool:
    """Whether a rise is shown, and large enough to matter."""
    return change is not None and above(one_of(change, SIGNS)) and change.mean >= least


def _joined(signs: list[Sign]) -> str:
    return " and ".join(sign.words for sign in signs)


def _figures(evidence: Evidence) -> dict[str, Estimate]:
    shown = evidence.answers
    kl = shown.kl or shown.kl_at_temperature
    return known(
        length_in_tokens=shown.length_change,
        share_of_repeated_trigrams=shown.repetition_change,
        surprise_in_nats_a_token=shown.surprise_change,
        known_reward=shown.reward_difference,
        KL_in_nats_an_answer=None if kl is None else Estimate(kl.mean, _spread(kl.mean, kl.standard_error)),
    )


def _spread(mean: float, error: float | None) -> tuple[float, float] | None:
    return None if error is None else (mean - Z_95 * error, mean + Z_95 * error)


def _paid(shown: Figures) -> str:
    kl = shown.kl or shown.kl_at_temperature
    return "" if kl is None else f", for {number(kl.mean)} nats of KL an answer"


def _accuracy(evidence: Evidence) -> tuple[str, bool]:
    """The reward accuracy, and whether it is shown to be better than chance, which it starts from with DPO."""
    row = None if evidence.evaluation is None else evidence.evaluation.figures
    if evidence.imitates:
        change = None if evidence.evaluation is None else evidence.evaluation.loss_change
        return f"{figure('held-out loss changed by', change)}", below(change)
    if row is None or row.accuracy is None:
        return "reward accuracy was not measured", False
    if row.accuracy_interval is not None and row.accuracy_interval[0] > 0.5:
        return f"reward accuracy is better than chance ({percent(row.accuracy)})", True
    return f"reward accuracy is not shown to be better than chance ({percent(row.accuracy)})", False


def _capped(evidence: Evidence) -> str:
    """That answers would be longer if they might, where they are as long as they may be."""
    most, after = evidence.setting("comparison", "max_new_tokens"), evidence.answers.answers_after
    if after is None or not isinstance(most, int) or after.tokens < CAPPED * most:
        return ""
    return f" Answers end at {evidence.option('comparison', 'max_new_tokens')}, so that more would not be seen."


def _shorter(evidence: Evidence) -> str:
    """Advice against length: an objective that discounts it, and pairs that do not reward it."""
    if not evidence.paired:
        return ""
    other = "" if evidence.setting("loss", "name") == "ld_dpo" else " Or take loss.name ld_dpo, which discounts length."
    return f"{other} See in the data report how often the chosen answer is the longer one."
