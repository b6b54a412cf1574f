"""What the frontier says of a run, in sentences; and what nobody can say of a run without a known reward."""

from __future__ import annotations

from dataclasses import dataclass

from tiltlm.report.learnt_from import imitates
from tiltlm.report.wording import count, number, percent
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.frontier_record import Frontier, FrontierPoint
from tiltlm.runs.outcomes import Summary
from tiltlm.runs.run_files import RunFiles
from tiltlm.text.masking import masked
from tiltlm.text.visible import visible

UNKNOWN = (
    "No reward is known here. Pairs say which of two answers somebody preferred, not how much better it is, nor how "
    "good other answers are. So nobody can say how much reward the run gained, how much any method could have gained "
    "at the same KL, or which share of that was reached. Held-out accuracy and margins are of the pairs' answers, not "
    "of the model's own. A judge makes it measurable, as far as the judge is right: docs/judges.md."
)
"""What cannot be known, said where comparison.reward is none."""
UNKNOWN_OF_IMITATION = (
    "No reward is known here. The run imitated answers that it was given, and nothing says how good they are, nor how "
    "good other answers are. So nobody can say how much reward the run gained, how much any method could have gained "
    "at the same KL, or which share of that was reached. A judge makes it measurable, as far as the judge is right: "
    "docs/judges.md."
)
"""The same where nothing was compared."""


@dataclass(frozen=True, slots=True)
class PathRow:
    """A line of the table of models, as it is shown."""

    name: str
    reward: str
    kl: str
    limit: str
    share: str


def sentences(run: RunFiles) -> list[str]:
    """What is known of the run's place between the reference and the limit, in plain words."""
    if run.frontier is not None:
        return of_frontier(run.frontier)
    reward = run.settings.get("comparison", {}).get("reward", "none")
    if reward == "none":
        return [unknown(run.summary)]
    own = run.settings.get("run", {})
    where = visible(masked(f"{own.get('directory', 'runs')}/{own.get('name', 'NAME')}"))
    return [
        f"How close the run came to the best possible at its KL was not measured: tiltlm frontier {where} "
        "draws answers of the reference and tells."
    ]


def unknown(summary: Summary | None) -> str:
    """What cannot be known of a run without a known reward, by what it learnt from."""
    return UNKNOWN_OF_IMITATION if summary is not None and imitates(summary) else UNKNOWN


def of_frontier(frontier: Frontier) -> list[str]:
    """What a frontier says of the last model on its path."""
    settings, last = frontier.settings, frontier.path[-1]
    said = [_gain(last)]
    if last.share is None:
        said.append(f"Which share of the possible gain that is cannot be told: {last.why}.")
    else:
        said.append(
            f"At that price no policy can have more than {number(last.limit or 0.0)}: of the possible gain it reached "
            f"{_share(last.share)}."
        )
        cheaper = [one for one in frontier.best_of if _clearly_above(one.reward, last) and one.kl < last.kl.mean]
        if cheaper:
            one = cheaper[0]
            said.append(
                f"The best of {one.n} answers of the reference has {number(one.reward.mean)} for at most "
                f"{number(one.kl)} nats: more, for less, at {one.n} times the work of every answer."
            )
    judge = visible(masked(settings.reward))
    said.append(
        f"On {count(settings.prompts, 'held-out prompt')}, {count(settings.reference_answers, 'answer')} of the "
        f"reference and {settings.answers} of each model to each, at temperature {number(settings.temperature)}, at "
        f"most {count(settings.max_new_tokens, 'token')}; rewards are those of {judge}."
    )
    if last.effective is not None and last.limit is not None:
        said.append(
            f"The limit rests on {number(last.effective)} effective answers a prompt; {number(last.bias or 0.0)} was "
            "added to it, by which such estimates are too low on average."
        )
    return said


def _clearly_above(reward: Estimate, point: FrontierPoint) -> bool:
    return reward.interval is not None and reward.interval[0] > point.reward.mean


def _gain(point: FrontierPoint) -> str:
    interval = point.gain.interval
    shown = "" if interval is None else f" (95% interval {number(interval[0])} to {number(interval[1])})"
    return (
        f"Mean reward went from {number(point.reward.mean - point.gain.mean)} to {number(point.reward.mean)}, by "
        f"{number(point.gain.mean)}{shown}, for {number(point.kl.mean)} nats of KL an answer."
    )


def _share(share: Estimate) -> str:
    if share.interval is None:
        return percent(share.mean)
    low, high = share.interval
    return f"{percent(share.mean)} (95% interval {percent(low)} to {percent(high)})"


def path_rows(frontier: Frontier) -> list[PathRow]:
    """The models on the path, then best-of-n as far as it is no dearer than they are."""
    rows = [
        PathRow(
            point.name,
            _figure(point.reward),
            _figure(point.kl),
            "-" if point.limit is None else number(point.limit),
            "-" if point.share is None else _share(point.share),
        )
        for point in frontier.path
    ]
    dearest = max(1.0, *(point.kl.mean for point in frontier.path))
    return rows + [
        PathRow(f"best of {one.n}, of the reference", _figure(one.reward), f"at most {number(one.kl)}", "-", "-")
        for one in frontier.best_of
        if one.kl <= dearest
    ]


def _figure(estimate: Estimate) -> str:
    if estimate.interval is None:
        return number(estimate.mean)
    return f"{number(estimate.mean)} [{number(estimate.interval[0])}, {number(estimate.interval[1])}]"
