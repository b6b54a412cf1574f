"""A run's folder is never taken from anything but a run, and its files are whole or not there."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tiltlm.config import Config
from tiltlm.errors import RunError
from tiltlm.runs.folder import RunFolder, newest_run


def a_run(directory: Path, name: str = "demo") -> RunFolder:
    folder = RunFolder.create(directory, name, overwrite=False)
    folder.write_json("config.json", Config())
    folder.metrics.write_text('{"kind": "train"}\n')
    return folder


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_new_folder_is_made_with_all_above_it(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a" / "b", "demo", overwrite=False)
    assert folder.path == tmp_path / "a" / "b" / "demo" and folder.path.is_dir()
    assert folder.model == folder.path / "model" and folder.metrics == folder.path / "metrics.jsonl"


def test_asking_makes_nothing(tmp_path: Path) -> None:
    RunFolder.require_free(tmp_path / "runs", "demo", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_free(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    assert RunFolder.create(tmp_path, "demo", overwrite=False).path.is_dir()


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    before = contents(run.path)
    for refuses in (RunFolder.require_free, RunFolder.create):
        with pytest.raises(RunError, match=r"there is a run in .*demo already: .*--run\.name.*--run\.overwrite"):
            refuses(tmp_path, "demo", False)
    assert contents(run.path) == before


def test_a_run_that_never_trained_is_in_nobodys_way(tmp_path: Path) -> None:
    a_run(tmp_path).metrics.unlink()
    assert list(RunFolder.create(tmp_path, "demo", overwrite=False).path.iterdir()) == []


def test_a_run_is_overwritten_if_asked_for_and_leaves_nothing_behind(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.model.mkdir()
    (run.model / "weights").write_text("old")
    other = a_run(tmp_path, "other")
    RunFolder.require_free(tmp_path, "demo", overwrite=True)
    assert (run.model / "weights").exists(), "asking removes nothing"
    assert contents(RunFolder.create(tmp_path, "demo", overwrite=True).path) == {}
    assert contents(other.path)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_a_run_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("not even a folder")
    for name in ("demo", "file"):
        with pytest.raises(RunError):
            RunFolder.create(tmp_path, name, overwrite)
    assert contents(tmp_path) == {"demo/thesis.tex": b"years of work", "file": b"not even a folder"}


def test_a_foreign_folder_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.tex").touch()
    with pytest.raises(RunError, match="demo holds something that is not a run, so it is not replaced"):
        RunFolder.create(tmp_path, "demo", overwrite=True)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RunError, match=r"cannot make the run's folder .*: Not a directory\."):
        RunFolder.create(tmp_path / "runs", "demo", overwrite=False)


def test_a_link_to_a_run_is_not_followed(tmp_path: Path) -> None:
    run = a_run(tmp_path / "elsewhere")
    (tmp_path / "demo").symlink_to(run.path)
    with pytest.raises(RunError, match=r"cannot make the run's folder .*: .*symbolic link"):
        RunFolder.create(tmp_path, "demo", overwrite=True)
    assert contents(run.path)


@dataclass(frozen=True)
class Inner:
    values: tuple[int, ...]
    where: Path


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    nothing: None = None


def test_records_become_json(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "demo", overwrite=False)
    run.write_json("outer.json", Outer("é", Inner((1, 2), Path("a/b"))))
    text = (run.path / "outer.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"name": "é", "inner": {"values": [1, 2], "where": "a/b"}, "nothing": None}
    assert "é" in text and text.endswith("}\n")
    run.write_json("plain.json", [1, None])
    assert json.loads((run.path / "plain.json").read_text()) == [1, None]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tmp_path, "demo", overwrite=False)
    run.write_json("summary.json", {"step": 1})
    replaced: list[tuple[str, object]] = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        # All of the new text is there before the old is gone.
        replaced.append((json.loads(Path(target).read_text())["step"], json.loads(Path(source).read_text())["step"]))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    run.write_json("summary.json", {"step": 2})
    assert replaced == [(1, 2)]
    assert [file.name for file in run.path.iterdir()] == ["summary.json"]


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tmp_path, "demo", overwrite=False)
    run.write_json("summary.json", {"step": 1})

    def no_space(*arguments: object, **options: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", no_space)
    with pytest.raises(OSError, match="No space"):
        run.write_json("summary.json", {"step": 2})
    monkeypatch.undo()
    assert json.loads((run.path / "summary.json").read_text()) == {"step": 1}


def test_the_newest_run_is_the_one_written_last(tmp_path: Path) -> None:
    for age, name in enumerate(("b", "c", "a")):
        config = a_run(tmp_path, name).path / "config.json"
        os.utime(config, (1000 - age, 1000 - age))
    (tmp_path / "notes").mkdir()
    assert newest_run(tmp_path) == tmp_path / "b"


@pytest.mark.parametrize("name", ["runs", "nowhere"])
def test_no_run_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "runs" / "notes").mkdir(parents=True)
    with pytest.raises(RunError, match=rf"there is no run in .*{name}: train one with `tiltlm train`"):
        newest_run(tmp_path / name)
