"""One look for every figure. Their words are symbols and names of methods, so one set serves every language."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#2b6cb0", "#dd6b20", "#2f855a", "#c53030", "#6b46c1", "#718096"

KL_FROM_REFERENCE = r"$\mathrm{KL}(\pi\,\Vert\,\pi_{\mathrm{ref}})$"
EXPECTED_REWARD = r"$\mathrm{E}_\pi\,r$"
REGRET = r"$J(\pi^*)-J(\pi)$"

LOOK = {
    "svg.fonttype": "path",
    "svg.hashsalt": "tiltlm",
    "font.family": "serif",
    "font.serif": ["cmr10"],
    "mathtext.fontset": "cm",
    "axes.formatter.use_mathtext": True,
    "axes.unicode_minus": False,
    "font.size": 9,
    "axes.labelsize": 10,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
}


@contextmanager
def style() -> Iterator[None]:
    """Within it figures have the document's look whatever the user's matplotlibrc says, to the same byte each time."""
    with matplotlib.style.context(["default", LOOK]):
        yield


def panels(count: int, height: float = 2.5) -> tuple[Figure, list[Axes]]:
    """A row of panels as wide as the page's text, in inches."""
    figure = Figure(figsize=(6.3, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])
