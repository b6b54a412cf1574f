"""The frontier as a picture: mean reward against KL, what no policy can reach, and where the run's models stand."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tiltlm.report.palette import CHOSEN, GRID, INK, MUTED, REJECTED, SURFACE
from tiltlm.report.plots import svg
from tiltlm.runs.frontier_record import Frontier


def frontier_svg(frontier: Frontier) -> str:
    """The picture as an svg element for a page."""
    return svg("frontier", "Mean reward against KL from the reference", lambda axes: draw_frontier(axes, frontier))


def draw_frontier(axes: Axes, frontier: Frontier) -> None:
    """The limit with what lies above it in grey, best-of-n, the reference, and the path with its intervals."""
    base = frontier.reference.mean
    if frontier.limit:
        prices, rewards = [point.kl for point in frontier.limit], [point.reward for point in frontier.limit]
        top = max([*rewards, *(point.reward.mean for point in frontier.path)])
        roof = top + 0.12 * max(top - base, 1e-9)
        axes.fill_between(prices, rewards, roof, color=GRID, linewidth=0, zorder=0)
        axes.plot(prices, rewards, color=INK, linewidth=1.5, zorder=3)
        axes.set_ylim(top=roof)
    dearest = max([frontier.limit[-1].kl if frontier.limit else 0.0, *(point.kl.mean for point in frontier.path)])
    shown = [one for one in frontier.best_of if one.kl <= max(dearest, 1.0)]
    axes.plot(
        [one.kl for one in shown],
        [one.reward.mean for one in shown],
        color=CHOSEN,
        linestyle="none",
        marker="D",
        markersize=3.5,
        zorder=4,
    )
    axes.plot([0], [base], color=MUTED, linestyle="none", marker="s", markersize=5, zorder=4)
    _path(axes, frontier)
    axes.set_xlabel("KL from the reference, nats an answer")
    axes.set_ylabel(f"mean reward ({frontier.settings.reward})")
    axes.set_xlim(left=-0.03 * max(dearest, 1.0))
    keys = [
        Line2D([], [], color=INK, linewidth=1.5, label="limit"),
        Line2D([], [], color=CHOSEN, linestyle="none", marker="D", markersize=3.5, label="best of 2, 4, ..."),
        Line2D([], [], color=MUTED, linestyle="none", marker="s", markersize=5, label="reference"),
        Line2D([], [], color=REJECTED, marker="o", markersize=5, linewidth=1, label="this run"),
    ]
    axes.legend(handles=keys, loc="best", handlelength=1.4)


def _path(axes: Axes, frontier: Frontier) -> None:
    points = frontier.path
    reached = [(0.0, frontier.reference.mean), *((point.kl.mean, point.reward.mean) for point in points)]
    axes.plot([kl for kl, _ in reached], [reward for _, reward in reached], color=REJECTED, linewidth=1, zorder=4)
    for point in points:
        kl, reward = point.kl, point.reward
        if reward.interval is not None:
            axes.plot([kl.mean, kl.mean], reward.interval, color=REJECTED, linewidth=1, alpha=0.6, zorder=4)
        if kl.interval is not None:
            axes.plot(kl.interval, [reward.mean, reward.mean], color=REJECTED, linewidth=1, alpha=0.6, zorder=4)
        axes.plot(
            [kl.mean],
            [reward.mean],
            color=REJECTED,
            linestyle="none",
            marker="o",
            markersize=5.5,
            markeredgecolor=SURFACE,
            markeredgewidth=0.9,
            zorder=5,
        )
