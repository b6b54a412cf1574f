"""The picture of a benchmark: bars of pairs a second and of peak memory, every round a point."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tiltlm.bench.speed_record import SpeedRecord, SystemFigures, Timed
from tiltlm.bench.systems import SYSTEMS
from tiltlm.report.palette import INK, MUTED, TRAIN
from tiltlm.report.plots import drawn_in_our_style
from tiltlm.report.wording import number


def draw_speed(record: SpeedRecord, path: Path) -> None:
    """Writes the bars to a PNG. The same record gives the same bytes."""
    with drawn_in_our_style():
        height = 1.1 + 0.34 * len(record.figures)
        figure = Figure(figsize=(9, height), dpi=200, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        speed, memory = figure.subplots(1, 2, sharey=True)
        _bars(speed, record, "Pairs a second", lambda one: one.pairs_per_second, record.pairs_per_second)
        _bars(memory, record, "Peak memory, GiB", lambda one: one.peak_gib, lambda timed: timed.peak_gib)
        circumstances = (record.model, record.data, f"{record.batch} pairs a step", record.precision)
        device = record.environment.device or ""
        figure.suptitle(f"{', '.join(circumstances)}\n{device}, {_versions(record)}", fontsize=7.5, color=MUTED)
        figure.savefig(path, format="png", metadata={"Software": None})


def _versions(record: SpeedRecord) -> str:
    own = {name: record.environment.versions.get(name) for name in ("tiltlm", "torch", "transformers")}
    others = {name: version for one in record.measured for name, version in one.timed.versions.items() if name == "trl"}
    return ", ".join(f"{name} {version}" for name, version in (own | others).items() if version is not None)


def _bars(
    axes: Axes,
    record: SpeedRecord,
    title: str,
    of: Callable[[SystemFigures], float | None],
    each: Callable[[Timed], float | None],
) -> None:
    names = [SYSTEMS[one.system].words for one in record.figures]
    values = [of(one) or 0.0 for one in record.figures]
    colours = [TRAIN if SYSTEMS[one.system].maker == "ours" else MUTED for one in record.figures]
    axes.barh(range(len(names)), values, color=colours, height=0.6, alpha=0.85)
    axes.set_yticks(range(len(names)), names)
    axes.set_title(title)
    axes.grid(visible=False, axis="y")
    for place, one in enumerate(record.figures):
        points = [value for timed in record.of(one.system).values() if (value := each(timed)) is not None]
        axes.plot(points, [place] * len(points), linestyle="none", marker="|", markersize=7, color=INK)
        told = of(one)
        axes.annotate(
            "not told" if told is None else number(told),
            (max([told or 0.0, *points]), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )
    axes.set_xlim(0, 1.15 * max([*values, 1e-12]))
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
