"""All methods of imdb_frontier.py on one plane of reward and KL, below the limit.

What is below is drawn on an axis that is even in the square root of KL, of which the limit is nearly linear at first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from imdb_record import REWARD_NAME, Record
from tiltlm.report.palette import CHOSEN, GRID, INK, MEMBERS, MUTED, SURFACE
from tiltlm.report.plots import drawn_in_our_style

TICKS = (0, 0.1, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256)
SIZE, DPI = 7, 200
LETTER = 0.62
"""About how wide a letter is, as a share of the size of the font."""
BESIDE = ((7, -9), (7, 4), (-7, -9), (-7, 4), (7, -20), (7, 15), (-7, -20), (-7, 15), (7, -31), (7, 26), (-7, -31))
"""Where a name may stand beside its point, in points, the first that is free: right of it, or left of it (negative)."""


def draw(record: Record, path: Path) -> None:
    """Writes the plane: limit, best-of-n, reference, and the mean of each setting over its seeds, which are small dots.

    The lines through a mean are 95% intervals, up and down that of its gain over the reference.
    """
    with drawn_in_our_style():
        figure = Figure(figsize=(8, 5.2), dpi=DPI, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        dearest = max([1.0, *(one.kl.mean for one in record.means)])
        _scale(axes, record, 1.15 * dearest)
        _draw_limit(axes, record, dearest)
        families = list(dict.fromkeys(one.family for one in record.settings))
        colours = {family: MEMBERS[number % len(MEMBERS)] for number, family in enumerate(families)}
        for family, colour in colours.items():
            _draw_family(axes, record, family, colour)
        _legend(axes, colours)
        figure.draw_without_rendering()  # where points are is known once everything has its place
        _names(axes, record, colours)
        figure.savefig(path, format="png", metadata={"Software": None})


def _scale(axes: Axes, record: Record, right: float) -> None:
    forward, back = (lambda kl: np.sqrt(np.maximum(kl, 0)), np.square)
    axes.set_xscale("function", functions=(forward, back))
    axes.set_xlim(0, right)
    axes.set_xticks([one for one in TICKS if one <= right], [f"{one:g}" for one in TICKS if one <= right])
    axes.set_xlabel("KL from the reference, nats an answer")
    axes.set_ylabel(f"mean reward, {REWARD_NAME}")
    axes.set_title("IMDB: reward against KL, and the most that any policy can have")
    points = [point for run in record.runs for point in (*run.before, run.trained)]
    rewards = [one.reward.mean for one in points] + [one.reward for one in record.limit]
    rewards += [record.reference.mean] if record.reference else []
    margin = 0.07 * max(max(rewards) - min(rewards), 0.05)
    axes.set_ylim(min(rewards) - margin, max(rewards) + margin)


def _draw_limit(axes: Axes, record: Record, dearest: float) -> None:
    if record.limit:
        prices, rewards = [one.kl for one in record.limit], [one.reward for one in record.limit]
        axes.fill_between(prices, rewards, axes.get_ylim()[1], color=GRID, linewidth=0, zorder=0)
        axes.plot(prices, rewards, color=INK, linewidth=1.5, zorder=3)
    for one in record.best_of:
        if one.kl <= dearest:
            axes.plot([one.kl], [one.reward.mean], color=CHOSEN, marker="D", markersize=3.5, zorder=4)
            spot = (one.kl, one.reward.mean)
            axes.annotate(str(one.n), spot, xytext=(3, -7), textcoords="offset points", fontsize=5.5, color=CHOSEN)
    if record.reference:
        at = [0.0], [record.reference.mean]
        axes.plot(*at, color=MUTED, linestyle="none", marker="s", markersize=6, zorder=4, clip_on=False)


def _draw_family(axes: Axes, record: Record, family: str, colour: str) -> None:
    betas = {one.name: float(str(one.loss.get("beta", 0))) for one in record.settings}
    means = sorted((one for one in record.means if one.family == family), key=lambda one: betas[one.name])
    if family == "DPO":  # its betas lie on one line
        axes.plot([one.kl.mean for one in means], [one.reward.mean for one in means], color=colour, linewidth=1)
    for run in (one for one in record.runs if one.family == family):
        way = [*run.before, run.trained]
        at = [point.kl.mean for point in way], [point.reward.mean for point in way]
        if run.before and run.seed == 0 and record.reference:
            way_at = [0.0, *at[0]], [record.reference.mean, *at[1]]
            axes.plot(*way_at, color=colour, linewidth=0.8, linestyle=":", marker="o", markersize=2, zorder=3)
        axes.plot(at[0][-1:], at[1][-1:], color=colour, linestyle="none", marker="o", markersize=2.5, alpha=0.6)
    for one in means:
        kl, reward, base = one.kl, one.reward.mean, one.reward.mean - one.gain.mean
        if one.gain.interval:
            ends = [base + end for end in one.gain.interval]
            axes.plot([kl.mean] * 2, ends, color=colour, linewidth=1, alpha=0.6, zorder=4)
        if kl.interval:
            axes.plot(kl.interval, [reward] * 2, color=colour, linewidth=1, alpha=0.6, zorder=4)
        point = [kl.mean], [reward]
        axes.plot(*point, color=colour, linestyle="none", marker="o", markersize=6.5, markeredgecolor=SURFACE, zorder=5)


def _names(axes: Axes, record: Record, colours: dict[str, str]) -> None:
    """Writes the names beside the points, each in the first place that no other name and no point has."""
    unit = DPI / 72  # pixels a point
    spots = [(one.kl.mean, one.reward.mean) for one in record.means]
    middles = axes.transData.transform([*spots, *((one.kl, one.reward.mean) for one in record.best_of)])
    taken = [Bbox.from_bounds(x - 4 * unit, y - 4 * unit, 8 * unit, 8 * unit) for x, y in middles]
    legend = axes.get_legend()
    taken += [legend.get_window_extent()] if legend else []
    for one, (x, y) in zip(record.means, middles, strict=False):
        width = LETTER * SIZE * len(one.name)
        boxes = [
            Bbox.from_bounds(x + (right - width * (right < 0)) * unit, y + up * unit, width * unit, SIZE * unit)
            for right, up in BESIDE
        ]
        free = [number for number, box in enumerate(boxes) if not any(box.overlaps(other) for other in taken)]
        place = free[0] if free else 0
        right, up = BESIDE[place]
        taken.append(boxes[place])
        axes.annotate(
            one.name,
            (one.kl.mean, one.reward.mean),
            xytext=(right, up),
            textcoords="offset points",
            horizontalalignment="left" if right > 0 else "right",
            fontsize=SIZE,
            color=colours[one.family],
            zorder=6,
        )


def _legend(axes: Axes, colours: dict[str, str]) -> None:
    keys = [
        Line2D([], [], color=INK, linewidth=1.5, label="limit, as far as it is known"),
        Line2D([], [], color=CHOSEN, linestyle="none", marker="D", markersize=3.5, label="best of 2, 4, ..."),
        Line2D([], [], color=MUTED, linestyle="none", marker="s", markersize=6, label="reference"),
        Line2D([], [], color=MUTED, linestyle=":", linewidth=0.8, label="a training's way, seed 0"),
    ]
    for family, colour in colours.items():
        keys.append(Line2D([], [], color=colour, linestyle="none", marker="o", markersize=6, label=family))
    axes.legend(handles=keys, loc="lower right", handlelength=1.4)
