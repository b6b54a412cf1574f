"""Makes the document: experiments into results, results into figures, Typst sources into theory.pdf and theory.ru.pdf.

    python theory/build.py             everything
    python theory/build.py --text      the PDFs alone, from the results and figures that are there

The results are what the text quotes and the figures show; nothing is typed in by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import time
from pathlib import Path
from typing import Any

import torch
import typst

from experiments import drawing
from experiments.table import EXPERIMENTS, Experiment
from tiltlm.runs.schema import from_json

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

DOCUMENTS = {"theory.pdf": HERE / "theory.en.typ", "theory.ru.pdf": HERE / "theory.ru.typ"}
SIGNIFICANT_DIGITS = 6
NOISE = 1e-9
"""Smaller magnitudes are rounding errors of float64 and are stored as zero."""


def results_path(experiment: Experiment) -> Path:
    return HERE / "results" / f"{experiment.name}.json"


def figure_path(experiment: Experiment) -> Path:
    return HERE / "figures" / f"{experiment.name}.svg"


def measured(experiment: Experiment) -> Any:
    """The experiment's results, rounded as they are stored."""
    return from_json(experiment.results, json.dumps(_rounded(dataclasses.asdict(experiment.measure()))).encode())


def stored(experiment: Experiment) -> Any:
    """The results that the document quotes."""
    return from_json(experiment.results, results_path(experiment).read_bytes())


def to_json(results: Any) -> str:
    """One key a line, lists of numbers on that line."""
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in dataclasses.asdict(results).items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def figure_svg(experiment: Experiment, results: Any) -> str:
    """The figure's SVG, the same to the last byte for the same results and matplotlib."""
    drawn = io.StringIO()
    with drawing.style():
        experiment.draw(results).savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n"


def pdf(source: Path) -> bytes:
    """The document's PDF, the same to the last byte for the same sources and typst; a warning is an error."""
    compiled, warnings = typst.compile_with_warnings(
        str(source), root=str(ROOT), format="pdf", ignore_system_fonts=True, timestamp=0
    )
    if warnings:
        raise ValueError(f"{source.name}: {'; '.join(str(warning) for warning in warnings)}")
    if not isinstance(compiled, bytes):
        raise TypeError(f"typst returned {type(compiled).__name__} for {source.name} instead of one PDF")
    return compiled


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return 0.0 if abs(value) < NOISE else float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", action="store_true", help="rebuild the PDFs alone")
    if not parser.parse_args().text:
        torch.set_num_threads(1)  # tensors of a few numbers: more threads only wait for each other
        for experiment in EXPERIMENTS.values():
            start = time.perf_counter()
            results = measured(experiment)
            results_path(experiment).parent.mkdir(exist_ok=True)
            results_path(experiment).write_text(to_json(results), encoding="utf-8")
            figure_path(experiment).parent.mkdir(exist_ok=True)
            figure_path(experiment).write_text(figure_svg(experiment, results), encoding="utf-8")
            print(f"{experiment.name:14} {time.perf_counter() - start:5.1f} s")
    for name, source in DOCUMENTS.items():
        (ROOT / name).write_bytes(pdf(source))
        print(f"{name:14} {(ROOT / name).stat().st_size / 1024:5.0f} KiB")


if __name__ == "__main__":
    main()
