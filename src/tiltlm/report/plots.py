"""The training curves: one PNG of six panels, and the same panels as SVG for the page.

Where answers are imitated, and none are compared, there are three. Lines are training steps, ringed points are
evaluations on held-out examples, in every panel.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.sax.saxutils import quoteattr

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tiltlm.report import panels
from tiltlm.report.palette import CSS_NAMES, STYLE
from tiltlm.runs.data_account import TokenHistograms
from tiltlm.runs.rows import EvalRow, Metrics, TrainRow


@dataclass(frozen=True, slots=True)
class Panel:
    """One set of axes: `name` keeps its SVG ids apart from those of other panels in a page.

    shows: fields of the rows; where no row has any of them, the panel says so.
    """

    name: str
    title: str
    draw: Callable[[Axes, Metrics], None]
    shows: tuple[str, ...]


PANELS = (
    Panel("loss", "Loss", panels.draw_loss, ("loss",)),
    Panel("margin", "Implicit reward margin", panels.draw_margin, ("margin",)),
    Panel("rewards", "Implicit rewards", panels.draw_rewards, ("chosen_reward", "rejected_reward")),
    Panel("accuracy", "Accuracy", panels.draw_accuracy, ("accuracy",)),
    Panel("logps", "Log-probabilities", panels.draw_log_probabilities, ("chosen_logp", "rejected_logp")),
    Panel("optimizer", "Gradient norm and learning rate", panels.draw_optimizer, ("step",)),
)
OF_REWARDS = frozenset({"margin", "rewards", "accuracy"})
"""The panels that compare answers, by the rewards that the policy implies."""
COLUMNS = 3


def shown_panels(compared: bool) -> tuple[Panel, ...]:
    """The panels of a run; without those of rewards where no answers are compared."""
    return tuple(panel for panel in PANELS if compared or panel.name not in OF_REWARDS)


def draw_training_metrics(metrics: Metrics, path: Path, compared: bool = True) -> None:
    """Writes the panels to a PNG of 1800 pixels' width, and 500 for each three of them. The same metrics give the same
    bytes.
    """
    shown = shown_panels(compared)
    rows = len(shown) // COLUMNS
    with drawn_in_our_style():
        figure = Figure(figsize=(9, 2.5 * rows), dpi=200, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        for axes, panel in zip(figure.subplots(rows, COLUMNS, squeeze=False).flat, shown, strict=True):
            _draw(panel, axes, metrics)
        figure.savefig(path, format="png", metadata={"Software": None})


def panel_svgs(metrics: Metrics, compared: bool = True) -> list[tuple[str, str]]:
    """The panels as (title, svg element), ready to stand together in one HTML page.

    Colours are CSS variables (`--plot-ink` and so on) that fall back to the PNG's. The same metrics
    give the same strings.
    """
    return [(panel.title, _panel_svg(panel, metrics)) for panel in shown_panels(compared)]


def length_svgs(histograms: TokenHistograms) -> list[tuple[str, str]]:
    """Histograms of the lengths in tokens, as (title, svg element) like the panels of training."""
    return [
        (title, svg(name, f"{title}: histogram", partial(draw, histograms=histograms)))
        for name, title, draw in (
            ("prompts", "Tokens of a prompt", panels.draw_prompt_lengths),
            ("completions", "Tokens of a completion, training", panels.draw_completion_lengths),
        )
    ]


def _panel_svg(panel: Panel, metrics: Metrics) -> str:
    return svg(panel.name, f"{panel.title} over the training steps", partial(_draw, panel, metrics=metrics))


def svg(name: str, label: str, draw: Callable[[Axes], None]) -> str:
    """What is drawn on a pair of axes, as an svg element for a page; `name` keeps its ids apart from others'."""
    with drawn_in_our_style():
        figure = Figure(figsize=(3.2, 2.35), layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        draw(axes)
        # The page sets the title as a heading of its own.
        axes.set_title("")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _for_inlining(buffer.getvalue(), name, label)


@contextmanager
def drawn_in_our_style() -> Iterator[None]:
    """Our style over matplotlib's defaults, so that a user's own style files change nothing; undone at the end."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def _draw(panel: Panel, axes: Axes, metrics: Metrics) -> None:
    axes.set_title(panel.title, pad=20)
    panel.draw(axes, metrics)
    rows: list[TrainRow | EvalRow] = [*metrics.train, *metrics.evaluations]
    last = max([1, *(row.step for row in rows)])
    axes.set_xlim(-0.04 * last, 1.04 * last)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("optimizer step")
    if not any(getattr(row, field) is not None for row in rows for field in panel.shows):
        axes.text(
            0.5, 0.5, "not measured" if rows else "nothing logged", ha="center", va="center", transform=axes.transAxes
        )


def _for_inlining(document: str, name: str, label: str) -> str:
    """The svg element alone, without a size of its own, with ids and colours fit for a shared page."""
    svg = document[document.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # This rule would reach every element of the page.
    svg = re.sub(r'<style type="text/css">.*?</style>', "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda match: _css_colour(match[0]), svg)
    return re.sub(r'width="[^"]*" height="[^"]*"', f'role="img" aria-label={quoteattr(label)}', svg, count=1)


def _css_colour(colour: str) -> str:
    return f"var(--plot-{CSS_NAMES[colour]}, {colour})" if colour in CSS_NAMES else colour
