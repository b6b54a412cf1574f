"""`torchrun ... -m tiltlm train`: what a person has afterwards, and what becomes of a job that loses a rank."""

from __future__ import annotations

from pathlib import Path

import kill_ranks
import pytest
from kill_ranks import RUN, TRAIN, Job, differs, outcome_of

from tiltlm.cli import main
from tiltlm.pipeline.ranks_at_work import JOB


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kill_ranks.make_pattern(tmp_path_factory.mktemp("pattern"))


@pytest.fixture(scope="module")
def unbroken(pattern: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a job of two ranks came to its end, with what it said in log.txt."""
    folder = tmp_path_factory.mktemp("unbroken")
    kill_ranks.unbroken(pattern, folder)
    return folder / "unbroken"


def test_a_job_leaves_what_one_process_leaves(
    unbroken: Path, tmp_path: Path, pattern: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(pattern)
    assert main(["train", *TRAIN, "--run.directory", str(tmp_path / "runs")]) == 0
    assert not differs(outcome_of(unbroken), outcome_of(tmp_path))
    found, wanted = (
        {str(path.relative_to(run)) for path in run.rglob("*") if not path.match("checkpoints/*/*")}
        for run in (unbroken / RUN, tmp_path / RUN)
    )
    assert found == wanted | {JOB}


def test_one_rank_speaks_for_all(unbroken: Path) -> None:
    said = (unbroken / "log.txt").read_text()
    for title in ("1/6 Data", "3/6 Training", "6/6 Report"):
        assert said.count(title) == 1
    assert said.count("checked: fast path equals slow path") == 1


def test_a_mistake_is_said_once(pattern: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, ["--data.train", "missing.jsonl", "--model.path", str(pattern / "model")])
    assert job.wait() == 1
    assert job.said().count("missing.jsonl") == 1


@pytest.mark.parametrize("number", [0, 1, 2], ids=kill_ranks.DEEDS[:3])
def test_a_job_that_loses_a_rank(number: int, pattern: Path, unbroken: Path, tmp_path: Path) -> None:
    """The short form of scripts/kill_ranks.py."""
    found = kill_ranks.trial(number, 3, pattern, outcome_of(unbroken), tmp_path)
    assert found.wrong == [], found
