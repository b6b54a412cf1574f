"""A tiny run to break: its options, and its ways in a working folder. It takes a fifth of a second."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_runs import write_model, write_pairs

from tiltlm.cli import main

OPTIONS = [
    *("--data.train", "pairs.jsonl", "--model.path", "tiny", "--run.name", "one", "--model.precision", "float32"),
    *("--training.batch-pairs", "4", "--training.max-steps", "2", "--training.eval-every", "0"),
    *("--comparison.prompts", "1", "--comparison.max-new-tokens", "2", "--comparison.samples", "1"),
]
RUN = Path("runs/one")
PICTURE = b"\x89PNG\r\n\x1a\n" + b"\0" * 4000 + b"IEND\xaeB`\x82"


def result(run: Path = RUN) -> tuple[bytes, list[float]]:
    """What a run came to: its weights and its losses."""
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    return (run / "model" / "model.safetensors").read_bytes(), losses


def contents(path: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code and what it said on standard error."""

    code: int
    error: str

    def sentence(self) -> str:
        """The one message: a line of its own, without a traceback."""
        assert self.code in (1, 2), self
        assert self.error.startswith("tiltlm: "), self.error
        assert self.error.count("\n") == 1 and "Traceback" not in self.error
        return self.error.removeprefix("tiltlm: ")


@dataclass(frozen=True, slots=True)
class Place:
    """The working folder of a command, and its ways there."""

    path: Path
    capture: pytest.CaptureFixture[str]

    def train(self, *more: str) -> Ended:
        self.capture.readouterr()
        code = main(["train", *OPTIONS, *more])
        return Ended(code, self.capture.readouterr().err)

    def report(self) -> Ended:
        self.capture.readouterr()
        code = main(["report", str(RUN)])
        return Ended(code, self.capture.readouterr().err)

    def wanted(self) -> tuple[bytes, list[float]]:
        """What the run comes to when nothing fails."""
        ended = self.train()
        assert ended == Ended(0, ""), ended
        return result()

    def back_to(self, kept: Path | None) -> None:
        """As at the beginning: no cache, and the runs of a kept folder."""
        for name in ("runs", "cache"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        if kept is not None:
            shutil.copytree(kept, self.path / "runs")


def broken_place(path: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> Place:
    """A working folder with a model, pairs and a cache of its own."""
    path.mkdir()
    patch.chdir(path)
    patch.setenv("TILTLM_CACHE", str(path / "cache"))
    write_model(path / "tiny")
    write_pairs(path / "pairs.jsonl")
    return Place(path, capture)


def leave_undrawn(patch: pytest.MonkeyPatch) -> None:
    """Drawing is most of the time that a tiny run takes, and no concern of these tests: the curves are left out."""
    patch.setattr("tiltlm.report.page.draw_training_metrics", lambda metrics, path, compared: path.write_bytes(PICTURE))
    patch.setattr("tiltlm.report.page.panel_svgs", lambda metrics, compared: [])
