"""Whole runs of two ranks over which every model is shared out, against those of one process."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kill_ranks
import pytest
import share_work
import torch
from filelock import FileLock
from safetensors.torch import load_file
from several_ranks import on_ranks
from share_work import comparison_of

from tiltlm.cli import main
from tiltlm.distributed.ranks import ALONE, Ranks

COMMON = [
    *["--data.train", "pairs.jsonl", "--model.path", "model", "--run.overwrite"],
    *["--comparison.prompts", "3", "--comparison.max-new-tokens", "6", "--comparison.samples", "2"],
    *["--training.max-steps", "3", "--training.batch-pairs", "5", "--training.micro-batch-tokens", "128"],
    *["--checkpoint.every-steps", "2"],
]
STILL = ["--training.learning-rate", "1e-60"]
"""Nothing in float32, so no weight changes: what is saved must then be equal to the bit, not within rounding."""
FAST = ["--training.learning-rate", "3e-3"]
VECTORS = ["--training.parameters", "steering-vectors"]
RUNS = {
    "narrow files": ["--model.precision", "bfloat16", "--model.save-dtype", "bfloat16", *STILL],
    "half files": ["--model.precision", "float32", "--model.save-dtype", "float16", *STILL],
    "adapter": ["--model.precision", "bfloat16", "--adapter.kind", "lora", "--adapter.targets", "all-linear", *STILL],
    "dora": ["--model.precision", "float32", "--adapter.kind", "dora", *STILL],
    "trained": ["--model.precision", "float32", *FAST],
    "another reference": ["--model.precision", "float32", "--model.reference", "other", *FAST],
    "distributions": ["--model.precision", "float32", "--loss.name", "tdpo2", *FAST],
    "follows": ["--model.precision", "float32", "--loss.name", "tr_dpo", "--loss.update-every", "1", *FAST],
    "vectors": ["--model.precision", "float32", *VECTORS, *FAST],
    "vectors that are followed": [
        *["--model.precision", "bfloat16", "--model.save-dtype", "bfloat16", "--loss.name", "tr_dpo", *VECTORS, *STILL]
    ],
    "without": ["--model.precision", "bfloat16", "--loss.name", "simpo", "--training.optimizer", "rmsprop", *FAST],
}
IN_STEP = ("narrow files", "trained", "another reference")
"""Of which no rank has room for a whole model, so that answers come about in step."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both kinds of runs were made, each in its own folder: `ranks` and `alone`."""
    own = tmp_path_factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared-runs"  # one for all workers
    with FileLock(f"{root}.lock"):
        if not (root / "made").exists():
            _make(root)
            (root / "made").touch()
    return root / "pattern" / "runs"


def _make(root: Path) -> None:
    root.mkdir()
    pattern = kill_ranks.make_pattern(root)
    shutil.copytree(pattern / "model", pattern / "other")
    torch.manual_seed(5)
    share_work.change_all(pattern / "other")
    assert on_ranks(2, every_run, pattern, "ranks") == [[0] * len(RUNS)] * 2
    assert every_run(ALONE, pattern, "alone") == [0] * len(RUNS)


def every_run(ranks: Ranks, place: Path, name: str) -> list[int]:
    return [
        share_work.run(
            ranks,
            place,
            [*COMMON, *words, "--run.directory", f"runs/{name}", "--run.name", title.replace(" ", "-")],
            in_step=title in IN_STEP,
        )
        for title, words in RUNS.items()
    ]


def both(folder: Path, title: str) -> tuple[Path, Path]:
    return folder / "ranks" / title.replace(" ", "-"), folder / "alone" / title.replace(" ", "-")


@pytest.mark.parametrize("title", ["narrow files", "half files", "adapter", "dora", "vectors that are followed"])
def test_what_was_not_changed_is_saved_to_the_bit(folder: Path, title: str) -> None:
    """Through dither, rounding, shares and gathering: all files of the model but its card, which tells of seconds."""
    found, wanted = (run / "model" for run in both(folder, title))
    names = {path.name for path in wanted.iterdir()}
    assert {path.name for path in found.iterdir()} == names
    for name in names - {"README.md"}:
        assert (found / name).read_bytes() == (wanted / name).read_bytes(), name


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("title", list(RUNS))
def test_rows_and_figures_are_those_of_one_process(folder: Path, title: str) -> None:
    tolerance = 2e-2 if "bfloat16" in RUNS[title] else 2e-3
    ours, others = both(folder, title)
    found, wanted = rows(ours), rows(others)
    assert len(found) == len(wanted) > 3
    for row, other in zip(found, wanted, strict=True):
        for name in ("loss", "gradient_norm", "margin"):
            if other.get(name) is not None:
                assert math.isclose(row[name], other[name], rel_tol=tolerance, abs_tol=tolerance), (
                    f"{row['step']} {name}"
                )
    figures = [json.loads((run / "evaluation.json").read_text())["figures"] for run in (ours, others)]
    assert math.isclose(figures[0]["loss"], figures[1]["loss"], rel_tol=2e-3), figures


@pytest.mark.parametrize("title", [title for title, words in RUNS.items() if words[-1] == FAST[-1]])
def test_trained_weights_are_those_of_one_process(folder: Path, title: str) -> None:
    """On average: where a gradient is zero but for rounding, Adam's first steps go either way."""
    found, wanted = (load_file(run / "model" / "model.safetensors") for run in both(folder, title))
    start = load_file(folder.parent / "model" / "model.safetensors")
    trained = [name for name, own in wanted.items() if not own.equal(start.get(name, torch.zeros_like(own)))]
    assert all(own.equal(wanted[name]) for name, own in found.items() if name not in trained)
    moved = torch.cat([(wanted[name] - start.get(name, 0)).flatten() for name in trained])
    apart = torch.cat([(found[name] - wanted[name]).flatten() for name in trained])
    assert moved.abs().mean() > 1e-3
    assert apart.abs().mean() < (0.1 if "bfloat16" in RUNS[title] else 0.01) * moved.abs().mean()


@pytest.mark.parametrize("title", ["narrow files", "half files", "trained", "another reference", "distributions"])
def test_answers_are_those_of_one_process(folder: Path, title: str) -> None:
    """Whether each rank has the models whole and its own prompts, or all answer in step."""
    (found, logps), (wanted, others) = (comparison_of(run) for run in both(folder, title))
    assert found == wanted
    assert all(math.isclose(*pair, rel_tol=1e-3, abs_tol=1e-3) for pair in zip(logps, others, strict=True))


@pytest.mark.parametrize("title", ["trained", "adapter", "vectors", "without"])
def test_a_checkpoint_of_shares_is_exported_by_one_process(folder: Path, title: str, tmp_path: Path) -> None:
    """The last one, as the run's own model: to the bit."""
    run, _ = both(folder, title)
    assert any((run / "checkpoints" / "step-00000003").glob("shard-*.safetensors"))
    assert in_folder(folder.parent, ["export", str(run), str(tmp_path / "model"), "--checkpoint", "last"]) == 0
    (weights,) = (run / "model").glob("*.safetensors")
    assert (tmp_path / "model" / weights.name).read_bytes() == weights.read_bytes()


def in_folder(place: Path, words: Sequence[str]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return main(list(words))
