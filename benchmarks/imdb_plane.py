"""What imdb_frontier.py found: its record, the table in words, and all methods on one plane of reward and KL."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from imdb_reward import REWARD, Trained
from imdb_settings import Setting, Sizes
from imdb_steps import Outcome
from machine import Circumstances, circumstances, write_record
from tiltlm.report.palette import CHOSEN, GRID, INK, MEMBERS, MUTED, SURFACE
from tiltlm.report.plots import drawn_in_our_style
from tiltlm.runs.estimates import Estimate, Interval
from tiltlm.runs.frontier_record import BestOf, Frontier, FrontierPoint, LimitPoint
from tiltlm.runs.schema import from_json

REWARD_NAME = "P(positive)"


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
    too, and are wide if anything. spread: standard deviation of the reward over seeds; None of one seed. limit, share:
    over the seeds where they could be told, of which there are `told`.
    """

    name: str
    family: str
    seeds: int
    reward: Estimate
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
        if f"frontier-{folder.name}" in outcome.seconds:
            one = from_json(Frontier, (folder / "frontier.json").read_bytes())
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
        kl=_averaged([point.kl for point in points]),
        spread=statistics.stdev([one.mean for one in rewards]) if len(rewards) > 1 else None,
        limit=statistics.fmean(limits) if limits else None,
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


def write(record: Record, folder: Path) -> None:
    """Writes `frontier.json`, and `figure.png` where there is a point to draw."""
    write_record(record, folder / "frontier.json")
    if record.means:
        draw(record, folder / "figure.png")


def told(record: Record) -> str:
    """The record as a plain table."""
    lines = [f"{'setting':<14}{'seeds':>6}{'KL, nats':>22}{REWARD_NAME:>24}{'limit':>8}{'share of the gain':>26}"]
    if record.reference:
        lines.append(f"{'reference':<14}{'':>6}{'0':>22}{_shown(record.reference):>24}")
    for one in record.means:
        limit = "-" if one.limit is None else f"{one.limit:.3f}"
        share = "-" if one.share is None else _shown(one.share, 2) + ("" if one.told == one.seeds else "*")
        lines.append(
            f"{one.name:<14}{one.seeds:>6}{_shown(one.kl, 2):>22}{_shown(one.reward):>24}{limit:>8}{share:>26}"
        )
    for best in record.best_of:
        lines.append(f"{f'best of {best.n}':<14}{'':>6}{best.kl:>22.2f}{_shown(best.reward):>24}")
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


def draw(record: Record, path: Path) -> None:
    """Writes the plane: limit, best-of-n, reference, and each setting's mean with its interval, seeds as small dots."""
    with drawn_in_our_style():
        figure = Figure(figsize=(8, 5.2), dpi=200, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        dearest = max([1.0, *(one.kl.mean for one in record.means)])
        _draw_limit(axes, record, dearest)
        families = list(dict.fromkeys(one.family for one in record.means))
        for number, family in enumerate(families):
            _draw_family(axes, record, family, MEMBERS[number % len(MEMBERS)])
        axes.set_xlabel("KL from the reference, nats an answer")
        axes.set_ylabel(f"mean reward, {REWARD_NAME}")
        axes.set_xlim(-0.03 * dearest, 1.12 * dearest)
        axes.set_title("IMDB: reward against KL, and the most that any policy can have")
        _legend(axes, families)
        figure.savefig(path, format="png", metadata={"Software": None})


def _draw_limit(axes: Axes, record: Record, dearest: float) -> None:
    if record.limit:
        prices, rewards = [one.kl for one in record.limit], [one.reward for one in record.limit]
        roof = max([*rewards, *(one.reward.mean for one in record.means)]) + 0.05
        axes.fill_between(prices, rewards, roof, color=GRID, linewidth=0, zorder=0)
        axes.plot(prices, rewards, color=INK, linewidth=1.5, zorder=3)
        axes.set_ylim(top=roof)
    shown = [one for one in record.best_of if one.kl <= dearest]
    at = [one.kl for one in shown], [one.reward.mean for one in shown]
    axes.plot(*at, color=CHOSEN, linestyle="none", marker="D", markersize=3.5, zorder=4)
    for one in shown:
        _name(axes, str(one.n), (one.kl, one.reward.mean), CHOSEN, 5.5)
    if record.reference:
        axes.plot([0], [record.reference.mean], color=MUTED, linestyle="none", marker="s", markersize=6, zorder=4)


def _draw_family(axes: Axes, record: Record, family: str, colour: str) -> None:
    means = sorted((one for one in record.means if one.family == family), key=lambda one: one.kl.mean)
    if family == "DPO":  # its betas lie on one line
        axes.plot([one.kl.mean for one in means], [one.reward.mean for one in means], color=colour, linewidth=1)
    for run in (one for one in record.runs if one.family == family):
        way = [*run.before, run.trained]
        at = [point.kl.mean for point in way], [point.reward.mean for point in way]
        if run.before and run.seed == 0:
            axes.plot(*at, color=colour, linewidth=0.8, linestyle=":", marker="o", markersize=2, zorder=3)
        axes.plot(at[0][-1:], at[1][-1:], color=colour, linestyle="none", marker="o", markersize=2.5, alpha=0.6)
    for one in means:
        kl, reward = one.kl, one.reward
        axes.plot([kl.mean] * 2, reward.interval or [reward.mean] * 2, color=colour, linewidth=1, alpha=0.6, zorder=4)
        axes.plot(kl.interval or [kl.mean] * 2, [reward.mean] * 2, color=colour, linewidth=1, alpha=0.6, zorder=4)
        at = [kl.mean], [reward.mean]
        axes.plot(*at, color=colour, linestyle="none", marker="o", markersize=6.5, markeredgecolor=SURFACE, zorder=5)
        _name(axes, one.name, (kl.mean, reward.mean), colour, 7)


def _name(axes: Axes, name: str, at: tuple[float, float], colour: str, size: float) -> None:
    """Writes a point's name below it, on the right."""
    axes.annotate(name, at, xytext=(5, -8), textcoords="offset points", fontsize=size, color=colour, zorder=6)


def _legend(axes: Axes, families: Sequence[str]) -> None:
    keys = [
        Line2D([], [], color=INK, linewidth=1.5, label="limit"),
        Line2D([], [], color=CHOSEN, linestyle="none", marker="D", markersize=3.5, label="best of 2, 4, ..."),
        Line2D([], [], color=MUTED, linestyle="none", marker="s", markersize=6, label="reference"),
        Line2D([], [], color=MUTED, linestyle=":", linewidth=0.8, label="a training's way, seed 0"),
    ]
    for number, family in enumerate(families):
        colour = MEMBERS[number % len(MEMBERS)]
        keys.append(Line2D([], [], color=colour, linestyle="none", marker="o", markersize=6, label=family))
    axes.legend(handles=keys, loc="lower right", handlelength=1.4)
