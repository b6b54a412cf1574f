"""What is read from a run's folder, and what is said when it cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import example_run
import pytest

from tiltlm.errors import RunError
from tiltlm.runs.run_files import read_run


def test_reads_a_whole_run(tmp_path: Path) -> None:
    run = read_run(example_run.write_run(tmp_path / "demo"))
    assert [len(run.metrics.train), len(run.metrics.evaluations)] == [40, 5]
    assert run.summary is not None
    assert run.summary.eval_accuracy_interval == (0.6, 0.79)
    assert run.summary.epochs == 2.0
    assert run.data.train is not None
    assert run.data.train.prompt_tokens is not None
    assert run.comparison is not None
    assert run.comparison.prompts[0].before.greedy.log_ratio is None


def test_comparison_may_be_absent(tmp_path: Path) -> None:
    assert read_run(example_run.write_run(tmp_path / "demo", comparison=None)).comparison is None


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_last_line_cut_short_is_left_out(tmp_path: Path, cut: int) -> None:
    folder = example_run.write_run(tmp_path / "demo")
    metrics = folder / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-cut])
    run = read_run(folder)
    # Without its newline alone, the last line is still whole.
    assert len(run.metrics.evaluations) == (5 if cut == 1 else 4)


def test_no_other_line_may_be_damaged(tmp_path: Path) -> None:
    folder = example_run.write_run(tmp_path / "demo")
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    for damaged in ([*lines[:2], lines[2][:20], *lines[3:]], [*lines, lines[0][:20]]):
        metrics.write_text("".join(line + "\n" for line in damaged))
        with pytest.raises(
            RunError, match=r"metrics\.jsonl of the run in .*demo is damaged: line \d+: it is not valid"
        ):
            read_run(folder)


@pytest.mark.parametrize("name", ["config", "environment", "data_report"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = example_run.write_run(tmp_path / "demo", **{name: None})
    with pytest.raises(RunError, match=rf"cannot read {name}\.json of the run in .*demo .*: give the folder"):
        read_run(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no run in .*nowhere"):
        read_run(tmp_path / "nowhere")


def test_broken_json_is_named(tmp_path: Path) -> None:
    folder = example_run.write_run(tmp_path / "demo")
    (folder / "summary.json").write_text('{"run": ')
    with pytest.raises(RunError, match=r"summary\.json of the run in .*demo is damaged: it is not valid JSON"):
        read_run(folder)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"run": None}, "`run` is missing; it should be a string"),
        ({"completed": "yes"}, "`completed` should be true or false, and is 'yes'"),
        ({"kl": {"mean": 1.0, "samples": True}}, "`kl.samples` should be a whole number, and is True"),
        ({"win_rate_interval": [0.1]}, "`win_rate_interval` should hold 2 values, and holds 1"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(tmp_path: Path, changed: dict[str, object], words: str) -> None:
    folder = example_run.write_run(tmp_path / "demo", summary=example_run.summary() | changed)
    with pytest.raises(RunError) as raised:
        read_run(folder)
    assert words in str(raised.value)


def test_an_unknown_kind_of_row_is_named(tmp_path: Path) -> None:
    folder = example_run.write_run(tmp_path / "demo", metrics=[{"kind": "trian", "step": 1}])
    with pytest.raises(RunError, match="line 1: its kind should be `train` or `eval`, and is 'trian'"):
        read_run(folder)


def test_a_report_needs_no_torch() -> None:
    code = "import sys, tiltlm.report.page; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
