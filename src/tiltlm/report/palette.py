"""Colours of the curves, told apart by colour-blind readers, and the style all figures share."""

from __future__ import annotations

from typing import Any

INK = "#1d1f24"
MUTED = "#6a6e77"
GRID = "#e6e4df"
SURFACE = "#ffffff"
TRAIN = "#0b7a75"
HELD_OUT = "#8a3ffc"
CHOSEN = "#0072b2"
REJECTED = "#d55e00"

MEMBERS = ("#1b6ca8", "#c2410c", "#0b8a5e", "#9333ea", "#a16207", "#0e7490", "#be185d", "#475569")
"""Colours of a sweep's members, which dashes tell apart further."""

# Names of the page's CSS variables: a dark page sets lighter colours under the same names.
CSS_NAMES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    SURFACE: "surface",
    TRAIN: "train",
    HELD_OUT: "held-out",
    CHOSEN: "chosen",
    REJECTED: "rejected",
    **{colour: f"member-{place}" for place, colour in enumerate(MEMBERS)},
}

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-9, 9),  # a power of ten above the axis would lie under the legend
    "figure.constrained_layout.h_pad": 0.09,
    "figure.constrained_layout.w_pad": 0.09,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "xtick.color": MUTED,
    "xtick.labelsize": 7.5,
    "xtick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.color": MUTED,
    "ytick.labelsize": 7.5,
    "ytick.major.size": 2.5,
    "ytick.major.width": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "tiltlm",
}
