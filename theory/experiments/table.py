"""Every experiment by its name: what it measures, and how that is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from experiments import (
    convergence,
    coverage,
    deterministic,
    diagnostics,
    displacement,
    frontier,
    iterated,
    length,
    weights,
)


@dataclass(frozen=True, slots=True)
class Experiment:
    """measure: no arguments, fixed seeds, seconds; returns a dataclass of numbers. draw: a figure of exactly those."""

    name: str
    results: type[Any]
    measure: Callable[[], Any]
    draw: Callable[[Any], Figure]


EXPERIMENTS: dict[str, Experiment] = {
    name: Experiment(name, module.Results, module.measure, module.draw)
    for name, module in {
        "frontier": frontier,
        "deterministic": deterministic,
        "displacement": displacement,
        "length": length,
        "coverage": coverage,
        "convergence": convergence,
        "weights": weights,
        "iterated": iterated,
        "diagnostics": diagnostics,
    }.items()
}
