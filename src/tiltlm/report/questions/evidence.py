"""What counts as shown, and how figures and options are named in an answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

from tiltlm.evaluation.figures import figures
from tiltlm.objectives import OBJECTIVES
from tiltlm.report.wording import estimated
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.outcomes import Evaluation, Figures
from tiltlm.runs.question_answers import QuestionAnswer
from tiltlm.runs.run_files import RunFiles
from tiltlm.statistics import Z_95
from tiltlm.text.masking import masked
from tiltlm.text.visible import visible

FEWEST = 8
"""Prompts that an interval must rest on before anything is claimed by it. The bootstrap knows no values but those it
was given: the mean of five lies on one side of all its resamples in one sample of sixteen, whatever the truth."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a run is asked by: its files, and the figures of its answers, which are drawn from them once."""

    run: RunFiles
    answers: Figures

    @staticmethod
    def of(run: RunFiles) -> Evidence:
        """The evidence in a run's files."""
        return Evidence(run, Figures(counted_prompts=0) if run.comparison is None else figures(run.comparison))

    @property
    def evaluation(self) -> Evaluation | None:
        """The saved model's figures on held-out examples, if there was an evaluation."""
        return self.run.evaluation

    def setting(self, section: str, name: str) -> object:
        """A setting's value in this run; None where it has none."""
        return self.run.settings.get(section, {}).get(name)

    def option(self, section: str, name: str) -> str:
        """An option and its value in this run: training.learning_rate (1e-06)."""
        value = self.setting(section, name)
        plain = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        # The sentence goes to consoles, too: what a user wrote is shown there, not obeyed.
        shown = "" if value is None else f" ({value:g})" if plain else f" ({visible(masked(str(value)))})"
        return f"{section}.{name}{shown}"

    @property
    def paired(self) -> bool:
        """Whether the objective learns from pairs; one that is not ours is taken to."""
        objective = OBJECTIVES.get(str(self.setting("loss", "name")))
        return objective is None or objective.needs.unit == "pair"

    @property
    def imitates(self) -> bool:
        """Whether answers are imitated, and nothing is compared with them."""
        objective = OBJECTIVES.get(str(self.setting("loss", "name")))
        return objective is not None and objective.needs.unit == "demonstration"

    def softer(self) -> str:
        """Advice that lets the policy move less: a lower learning rate, fewer passes, a higher beta."""
        ways = [f"lower {self.option('training', 'learning_rate')}"]
        epochs = self.setting("training", "epochs")
        if isinstance(epochs, int) and epochs > 1:
            ways.append(f"lower {self.option('training', 'epochs')}")
        if self.setting("loss", "beta") is not None:
            ways.append(f"raise {self.option('loss', 'beta')}")
        text = ways[0] if len(ways) == 1 else f"{', '.join(ways[:-1])} or {ways[-1]}"
        return f"{text[:1].upper()}{text[1:]}."


def tells(estimate: Estimate | None) -> bool:
    """Whether a claim may rest on it: it has an interval, over enough prompts where their number is known."""
    return (
        estimate is not None
        and estimate.interval is not None
        and (estimate.clusters is None or estimate.clusters >= FEWEST)
    )


def one_of(estimate: Estimate, signs: int) -> Estimate:
    """The estimate with an interval that is wider, as it is one of several signs, each of which alone would be claimed.

    All of them together then seem to rise by chance in one case of twenty, as Bonferroni's inequality has it.
    """
    if estimate.interval is None or signs == 1:
        return estimate
    wider = NormalDist().inv_cdf(1 - 0.05 / signs) / Z_95
    low, high = (estimate.mean + wider * (bound - estimate.mean) for bound in estimate.interval)
    return replace(estimate, interval=(low, high))


def above(estimate: Estimate | None, value: float = 0.0) -> bool:
    """Whether the whole interval lies above the value."""
    return tells(estimate) and _interval(estimate)[0] > value


def below(estimate: Estimate | None, value: float = 0.0) -> bool:
    """Whether the whole interval lies below the value."""
    return tells(estimate) and _interval(estimate)[1] < value


def within(estimate: Estimate | None, bound: float) -> bool:
    """Whether the whole interval lies between minus the bound and the bound: that little happened is shown too."""
    return above(estimate, -bound) and below(estimate, bound)


def _interval(estimate: Estimate | None) -> tuple[float, float]:
    assert estimate is not None and estimate.interval is not None
    return estimate.interval


def known(**estimates: Estimate | None) -> dict[str, Estimate]:
    """The figures that were measured; underscores in their names stand for spaces."""
    return {name.replace("_", " "): estimate for name, estimate in estimates.items() if estimate is not None}


def figure(name: str, estimate: Estimate | None, unit: str = "") -> str:
    """`chosen -1.2 (95% interval -1.9 to -0.5) nats`, or that it was not measured."""
    if estimate is None:
        return f"{name} not measured"
    return f"{name} {estimated(estimate)}{f' {unit}' if unit else ''}"


def too_few(*estimates: Estimate | None) -> str:
    """Why nothing can be shown, where it is for want of prompts; else nothing."""
    fewest = min((estimate.clusters or FEWEST for estimate in estimates if estimate is not None), default=FEWEST)
    return f" It rests on {fewest} prompts, and fewer than {FEWEST} show nothing." if fewest < FEWEST else ""


def unmeasured(name: str, question: str, why: str) -> QuestionAnswer:
    """The answer of a run that has no figures for it."""
    return QuestionAnswer(name=name, question=question, verdict="not measured", sentence=f"Not measured: {why}.")
