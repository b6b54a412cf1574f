"""What imdb_frontier.py found: its record, and the table in words."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from imdb_reward import REWARD, Trained
from imdb_settings import Setting, Sizes
from imdb_steps import Outcome
from machine import Circumstances, circumstances
from tiltlm.runs.estimates import Estimate, Interval
from tiltlm.runs.frontier_record import BestOf, Frontier, FrontierPoint, LimitPoint
from tiltlm.runs.schema import from_json

REWARD_NAME = "P(positive)"
WIDTHS = (6, 22, 13, 24, 8, 20)
"""Of the table's columns, after the first."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A training: its trained model, and the models on the way that were placed too, all with gain, limit and share."""

    name: str
    family: str
    seed: int
    trained: FrontierPoint
    before: tuple[FrontierPoint, ...]


@dataclass(frozen=True, slots=True)
class Mean:
    """A setting over its seeds.

    Intervals are the means of the seeds' own: over held-out prompts, which the seeds share. So they hold for the mean
    too, and are wide if anything. gain: over the reference, prompt by prompt. spread: standard deviation of the reward
    over seeds; None of one seed. limit: None unless it could be told for every seed. share: over the seeds where it
    could be; `told`: how many.
    """

    name: str
    family: str
    seeds: int
    reward: Estimate
    gain: Estimate
    kl: Estimate
    spread: float | None
    limit: float | None
    share: Estimate | None
    told: int


@dataclass(frozen=True, slots=True)
class Record:
    """Everything measured. reward: what the classifier is worth, None where it is missing. limit, best_of: of the
    reference's answers. failed: by step, why. left_out: steps that were not begun. seconds: of each step."""

    circumstances: Circumstances
    gpu: str | None
    sizes: Sizes
    settings: list[Setting]
    reward: Trained | None
    reference: Estimate | None
    limit: tuple[LimitPoint, ...]
    best_of: tuple[BestOf, ...]
    means: list[Mean]
    runs: list[Placed]
    failed: dict[str, str]
    left_out: list[str]
    seconds: dict[str, float]


def collected(work: Path, sizes: Sizes, places: Sequence[tuple[Setting, int, Path]], outcome: Outcome) -> Record:
    """What there is in the work folder.

    Args:
        places: setting, seed and folder of each training. outcome: of the steps of this call; a frontier that an
            earlier one left counts only where its step is done.
    """
    runs, found = list[Placed](), list[Frontier]()
    settings = list(dict.fromkeys(setting.name for setting, _, _ in places))
    for setting, seed, folder in places:
        place = folder / "frontier.json"
        if f"frontier-{folder.name}" in outcome.seconds and place.is_file():
            one = from_json(Frontier, place.read_bytes())
            found.append(one)
            runs.append(Placed(setting.name, setting.family, seed, one.path[-1], one.path[:-1]))
    longest = max(found, key=lambda one: one.limit[-1].kl if one.limit else 0.0, default=None)
    kept = work / REWARD
    by_name = {setting.name: setting for setting, _, _ in places}
    return Record(
        circumstances=circumstances("float32"),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        sizes=sizes,
        settings=[by_name[name] for name in settings],
        reward=Trained(**json.loads(kept.read_text(encoding="utf-8"))) if kept.is_file() else None,
        reference=longest.reference if longest else None,
        limit=longest.limit if longest else (),
        best_of=longest.best_of if longest else (),
        means=[mean for name in settings if (mean := _mean([run for run in runs if run.name == name]))],
        runs=runs,
        failed={name: why.replace(str(work), work.name) for name, why in outcome.failed.items()},
        left_out=outcome.left_out,
        seconds=outcome.seconds,
    )


def _mean(runs: Sequence[Placed]) -> Mean | None:
    if not runs:
        return None
    points = [run.trained for run in runs]
    rewards, shares = [point.reward for point in points], [point.share for point in points if point.share]
    limits = [point.limit for point in points if point.limit is not None]
    return Mean(
        name=runs[0].name,
        family=runs[0].family,
        seeds=len(runs),
        reward=_averaged(rewards),
        gain=_averaged([point.gain for point in points]),
        kl=_averaged([point.kl for point in points]),
        spread=statistics.stdev([one.mean for one in rewards]) if len(rewards) > 1 else None,
        limit=statistics.fmean(limits) if len(limits) == len(points) else None,
        share=_averaged(shares) if shares else None,
        told=len(shares),
    )


def _averaged(estimates: Sequence[Estimate]) -> Estimate:
    intervals = [one.interval for one in estimates]
    ends: Interval | None = None
    if all(intervals):
        low, high = zip(*(one for one in intervals if one), strict=True)
        ends = statistics.fmean(low), statistics.fmean(high)
    return Estimate(statistics.fmean([one.mean for one in estimates]), ends, estimates[0].clusters)


def told(record: Record) -> str:
    """The record as a plain table."""
    rows = [("setting", "seeds", "KL, nats", REWARD_NAME, "gain", "limit", "share of possible")]
    if record.reference:
        rows.append(("reference", "", "0", f"{record.reference.mean:.3f}", "", "", ""))
    for one in record.means:
        limit = "-" if one.limit is None else f"{one.limit:.3f}"
        share = "-" if one.share is None else _shown(one.share, 2) + ("" if one.told == one.seeds else "*")
        reward = f"{one.reward.mean:.3f}"
        rows.append((one.name, str(one.seeds), _shown(one.kl, 2), reward, _shown(one.gain), limit, share))
    for best in record.best_of:
        rows.append((f"best of {best.n}", "", f"{best.kl:.2f}", f"{best.reward.mean:.3f}", "", "", ""))
    lines = [
        (f"{name:<14}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))).rstrip()
        for name, *cells in rows
    ]
    lines.append("intervals: 95%, over held-out prompts, of these trainings alone")
    lines += [
        f"{one.name}: seeds are {one.spread:.3f} apart in reward" for one in record.means if one.spread is not None
    ]
    if any(one.share and one.told < one.seeds for one in record.means):
        lines.append("* of the seeds whose share could be told")
    if record.reward:
        worth = record.reward
        lines.append(
            f"classifier: {worth.review_accuracy:.1%} of {worth.test_reviews} test reviews right, "
            f"{worth.piece_accuracy:.1%} of {worth.test_pieces} pieces of them"
        )
    unknown = {run.trained.why for run in record.runs if run.trained.why}
    lines += [f"no share: {why}" for why in sorted(unknown)]
    lines += [f"failed: {name}" for name in record.failed]
    return "\n".join([*lines, *([f"left out: {', '.join(record.left_out)}"] if record.left_out else [])])


def _shown(one: Estimate, digits: int = 3) -> str:
    ends = f" [{one.interval[0]:.{digits}f}, {one.interval[1]:.{digits}f}]" if one.interval else ""
    return f"{one.mean:.{digits}f}{ends}"
