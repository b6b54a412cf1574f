"""What each panel of the training curves shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tiltlm.report.palette import CHOSEN, HELD_OUT, MUTED, REJECTED, SURFACE, TRAIN
from tiltlm.runs.data_account import TokenHistograms
from tiltlm.runs.rows import Metrics

# From this many steps on, a line of raw values is too restless to be read alone.
SMOOTHED_FROM = 20
RING: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 5.5,
    "markeredgecolor": SURFACE,
    "markeredgewidth": 0.9,
}


def draw_loss(axes: Axes, metrics: Metrics) -> None:
    """Training and held-out loss."""
    _line(axes, ((row.step, row.loss) for row in metrics.train), TRAIN)
    _points(axes, ((row.step, row.loss) for row in metrics.evaluations), HELD_OUT)
    _finish(axes, "loss", [_line_key("train", TRAIN), _point_key(HELD_OUT)])


def draw_margin(axes: Axes, metrics: Metrics) -> None:
    """How far the implicit reward of chosen lies above that of rejected."""
    axes.axhline(0, color=MUTED, linewidth=0.6)
    _line(axes, ((row.step, row.margin) for row in metrics.train), TRAIN)
    _points(axes, ((row.step, row.margin) for row in metrics.evaluations), HELD_OUT)
    _finish(axes, "margin (beta × nats)", [_line_key("train", TRAIN), _point_key(HELD_OUT)])


def draw_rewards(axes: Axes, metrics: Metrics) -> None:
    """The two implicit rewards whose difference is the margin."""
    axes.axhline(0, color=MUTED, linewidth=0.6)
    _line(axes, ((row.step, row.chosen_reward) for row in metrics.train), CHOSEN)
    _line(axes, ((row.step, row.rejected_reward) for row in metrics.train), REJECTED)
    _points(axes, ((row.step, row.chosen_reward) for row in metrics.evaluations), CHOSEN)
    _points(axes, ((row.step, row.rejected_reward) for row in metrics.evaluations), REJECTED)
    _finish(axes, "reward (beta × nats)", _chosen_and_rejected_keys())


def draw_accuracy(axes: Axes, metrics: Metrics) -> None:
    """Share of pairs whose chosen completion has the higher implicit reward; held out with 95% intervals."""
    axes.axhline(0.5, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    _line(axes, ((row.step, row.accuracy) for row in metrics.train), TRAIN)
    for row in metrics.evaluations:
        if row.accuracy_interval is not None:
            axes.plot([row.step, row.step], row.accuracy_interval, color=HELD_OUT, linewidth=1.3, alpha=0.75, zorder=4)
    _points(axes, ((row.step, row.accuracy) for row in metrics.evaluations), HELD_OUT)
    axes.set_ylim(-0.03, 1.03)
    chance = Line2D([], [], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="chance")
    _finish(axes, "share of pairs", [_line_key("train", TRAIN), _point_key(HELD_OUT, "held out, 95%"), chance])


def draw_log_probabilities(axes: Axes, metrics: Metrics) -> None:
    """log pi of the chosen and the rejected completions, summed over tokens, on average; of one kind if it is alone."""
    _line(axes, ((row.step, row.chosen_logp) for row in metrics.train), CHOSEN)
    _line(axes, ((row.step, row.rejected_logp) for row in metrics.train), REJECTED)
    _points(axes, ((row.step, row.chosen_logp) for row in metrics.evaluations), CHOSEN)
    _points(axes, ((row.step, row.rejected_logp) for row in metrics.evaluations), REJECTED)
    compared = not metrics.train or any(row.rejected_logp is not None for row in metrics.train)
    keys = _chosen_and_rejected_keys() if compared else [_line_key("answers", CHOSEN), _point_key(MUTED)]
    _finish(axes, "nats per completion", keys)


def draw_optimizer(axes: Axes, metrics: Metrics) -> None:
    """Gradient norm before clipping on the left, learning rate on the right; both from zero."""
    rates = axes.twinx()
    # Behind the curve, not over it.
    rates.set_zorder(axes.get_zorder() - 1)
    rates.grid(visible=False)
    steps, values = _finite((row.step, row.learning_rate) for row in metrics.train)
    rates.plot(steps, values, color=MUTED, linewidth=1.1, linestyle=(0, (1, 1.2)), marker=_lone_marker(steps))
    rates.set_ylabel("learning rate")
    rates.set_ylim(bottom=0, top=_headroom(values))
    rates.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    rates.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: _short_exponent(rate)))
    _line(axes, ((row.step, row.gradient_norm) for row in metrics.train), TRAIN)
    axes.set_ylim(bottom=0, top=_headroom(_finite((row.step, row.gradient_norm) for row in metrics.train)[1]))
    learning_rate = Line2D([], [], color=MUTED, linewidth=1.1, linestyle=(0, (1, 1.2)), label="learning rate (right)")
    _finish(axes, "gradient norm", [_line_key("gradient norm", TRAIN), learning_rate])


def draw_prompt_lengths(axes: Axes, histograms: TokenHistograms) -> None:
    """Share of the prompts in each bin of lengths, in training and held out."""
    kinds = {("train", "prompt"): TRAIN, ("eval", "prompt"): HELD_OUT}
    _histograms(axes, histograms, kinds, [_line_key("train", TRAIN), _line_key("held out", HELD_OUT)])


def draw_completion_lengths(axes: Axes, histograms: TokenHistograms) -> None:
    """Share of the chosen and of the rejected training completions in each bin of lengths."""
    kinds = {("train", "chosen"): CHOSEN, ("train", "rejected"): REJECTED}
    _histograms(axes, histograms, kinds, [_line_key("chosen", CHOSEN), _line_key("rejected", REJECTED)])


def _histograms(axes: Axes, histograms: TokenHistograms, kinds: dict[tuple[str, str], str], keys: list[Line2D]) -> None:
    for one in histograms.histograms:
        colour = kinds.get((one.split, one.part))
        counts = np.array(one.counts)
        if colour is not None and counts.any():
            shares = counts / counts.sum()
            axes.stairs(shares, histograms.edges, color=colour, linewidth=1.5)
            axes.stairs(shares, histograms.edges, color=colour, fill=True, alpha=0.15)
    axes.set_xlim(0, histograms.edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tokens")
    _finish(axes, "share of texts", keys)


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a window centred on each value, about a tenth of the series wide; at both ends, what there is of it."""
    reach = max(2, len(values) // 20)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, end = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    means: np.ndarray = (sums[end] - sums[first]) / (end - first)
    return means


def _line(axes: Axes, points: Iterable[tuple[int, float | None]], colour: str) -> None:
    steps, values = _finite(points)
    if len(steps) < SMOOTHED_FROM:
        axes.plot(steps, values, color=colour, linewidth=1.5, marker=_lone_marker(steps), zorder=3)
        return
    axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.35, zorder=2)
    axes.plot(steps, running_mean(values), color=colour, linewidth=1.7, zorder=3)


def _points(axes: Axes, points: Iterable[tuple[int, float | None]], colour: str) -> None:
    steps, values = _finite(points)
    if not len(steps):
        # Unclipped points that are not there would still claim the figure's corner in the layout.
        return
    axes.plot(steps, values, color=colour, linewidth=0.9, linestyle=(0, (3, 2)), alpha=0.7, zorder=4)
    axes.plot(steps, values, color=colour, zorder=5, clip_on=False, **RING)


def _finite(points: Iterable[tuple[int, float | None]]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the points that can be drawn: those measured, and finite."""
    table = np.array(list(points), dtype=float).reshape(-1, 2)
    table = table[np.isfinite(table[:, 1])]
    return table[:, 0], table[:, 1]


def _lone_marker(steps: np.ndarray) -> str:
    # A line through one point is invisible.
    return "o" if len(steps) == 1 else ""


def _short_exponent(value: float) -> str:
    """`5e-6`, `2.5e-6`, `0`."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}" if value else "0"


def _headroom(values: np.ndarray) -> float:
    return 1.12 * float(values.max()) if len(values) and values.max() > 0 else 1.0


def _line_key(label: str, colour: str) -> Line2D:
    return Line2D([], [], color=colour, linewidth=1.7, label=label)


def _point_key(colour: str, label: str = "held out") -> Line2D:
    return Line2D([], [], color=colour, label=label, **RING)


def _chosen_and_rejected_keys() -> list[Line2D]:
    return [_line_key("chosen", CHOSEN), _line_key("rejected", REJECTED), _point_key(MUTED)]


def _finish(axes: Axes, unit: str, keys: list[Line2D]) -> None:
    """The unit, and the legend on a line of its own between title and curves."""
    axes.set_ylabel(unit)
    axes.legend(
        handles=keys,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=len(keys),
        borderaxespad=0.1,
        borderpad=0.3,
        handlelength=1.3,
        handletextpad=0.5,
        columnspacing=1.1,
    )
