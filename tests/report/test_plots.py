"""The PNG and the SVG panels."""

from __future__ import annotations

import re
import struct
import warnings
from pathlib import Path
from xml.etree import ElementTree

import example_run
import matplotlib as mpl
import numpy as np
import pytest

from tiltlm.report.panels import running_mean
from tiltlm.report.plots import draw_training_metrics, panel_svgs
from tiltlm.runs.rows import EvalRow, Metrics, TrainRow

SVG = "{http://www.w3.org/2000/svg}"


def metrics(steps: int = 40, evaluated: bool = True, **changed: float) -> Metrics:
    rows = example_run.metric_rows(steps)
    return Metrics(
        train=tuple(example_run.record(TrainRow, row | changed) for row in rows if row["kind"] == "train"),
        evaluations=tuple(example_run.record(EvalRow, row) for row in rows if row["kind"] == "eval" and evaluated),
    )


def png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:])
    return width, height


@pytest.mark.parametrize(
    "drawn",
    [metrics(), metrics(1), metrics(1, evaluated=False), metrics(0), metrics(0, evaluated=False)],
    ids=["whole", "one step", "one step, not evaluated", "evaluated only", "empty"],
)
def test_every_length_of_run_can_be_drawn(tmp_path: Path, drawn: Metrics) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_training_metrics(drawn, tmp_path / "plot.png")
        panels = panel_svgs(drawn)
    assert png_size(tmp_path / "plot.png") == (1800, 1000)
    assert len(panels) == 6
    assert not any("nan" in svg.lower() for _, svg in panels)


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    broken = metrics(5, loss=float("nan"), gradient_norm=float("inf"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_training_metrics(broken, tmp_path / "plot.png")
        assert not any("nan" in svg.lower() for _, svg in panel_svgs(broken))


def test_what_no_row_has_is_said_in_its_panel(tmp_path: Path) -> None:
    sides = ("chosen_reward", "rejected_reward", "margin", "accuracy", "chosen_logp", "rejected_logp")
    rows = [row | dict.fromkeys(sides) | {"accuracy_interval": None} for row in example_run.metric_rows(5)]
    bare = Metrics(
        train=tuple(example_run.record(TrainRow, row) for row in rows if row["kind"] == "train"),
        evaluations=tuple(example_run.record(EvalRow, row) for row in rows if row["kind"] == "eval"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_training_metrics(bare, tmp_path / "plot.png")
        said = {title for title, svg in panel_svgs(bare) if "not measured" in svg}
    assert said == {"Implicit reward margin", "Implicit rewards", "Accuracy", "Log-probabilities"}


def test_svgs_are_valid_and_share_no_ids() -> None:
    panels = panel_svgs(metrics())
    ids: list[str] = []
    for title, svg in panels:
        root = ElementTree.fromstring(svg)
        assert root.tag == f"{SVG}svg"
        assert root.get("aria-label") == f"{title} over the training steps"
        assert root.get("width") is None
        own = [element.get("id", "") for element in root.iter() if element.get("id")]
        referenced = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)
        assert {first or second for first, second in referenced} <= set(own)
        ids += own
    assert len(ids) == len(set(ids))


def test_units_and_legends_are_text() -> None:
    texts = {
        title: {element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")}
        for title, svg in panel_svgs(metrics())
    }
    assert {"optimizer step", "nats per completion", "chosen", "rejected", "held out"} <= texts["Log-probabilities"]
    assert {"share of pairs", "train", "held out, 95%", "chance"} <= texts["Accuracy"]


def test_drawing_is_deterministic_and_leaves_no_trace(tmp_path: Path) -> None:
    settings_before = dict(mpl.rcParams)
    for name in ("first.png", "second.png"):
        draw_training_metrics(metrics(), tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert panel_svgs(metrics()) == panel_svgs(metrics())
    assert dict(mpl.rcParams) == settings_before


def test_running_mean_is_a_mean_over_what_there_is() -> None:
    values = np.array([1.0, 2.0, 6.0, 3.0, 8.0, 4.0])
    slow = [values[max(0, i - 2) : i + 3].mean() for i in range(len(values))]
    np.testing.assert_allclose(running_mean(values), slow)
