"""A run's folder is never taken from anything but a run, and its files are whole or not there."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tiltlm.config import Config
from tiltlm.errors import RunError
from tiltlm.runs.folder import MARKER, RunFolder, free_name, is_run, require_apart
from tiltlm.runs.schema import SCHEMA


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
    assert contents(RunFolder.create(tmp_path, "demo", overwrite=False).path).keys() == {MARKER}


def test_a_run_is_overwritten_if_asked_for_and_leaves_nothing_behind(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.model.mkdir()
    (run.model / "weights").write_text("old")
    other = a_run(tmp_path, "other")
    RunFolder.require_free(tmp_path, "demo", overwrite=True)
    assert (run.model / "weights").exists(), "asking removes nothing"
    assert contents(RunFolder.create(tmp_path, "demo", overwrite=True).path).keys() == {MARKER}
    assert contents(other.path)
    assert {path.name for path in tmp_path.iterdir()} == {"demo", "other"}


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
    with pytest.raises(
        RunError, match=r"demo holds something that is not a run of this version \(it has no file \.tiltlm-run\)"
    ):
        RunFolder.create(tmp_path, "demo", overwrite=True)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RunError, match=r"cannot make the run's folder .*: .*runs is not a directory"):
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
    assert json.loads(text) == {
        "schema": SCHEMA,
        "name": "é",
        "inner": {"values": [1, 2], "where": "a/b"},
        "nothing": None,
    }
    assert "é" in text and text.endswith("}\n")
    run.write_json("plain.json", [1, None])
    assert json.loads((run.path / "plain.json").read_text()) == [1, None]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tmp_path, "demo", overwrite=False)
    run.write_json("summary.json", {"step": 1})
    replaced: list[tuple[int, int]] = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        # All of the new text is there before the old is gone.
        replaced.append((json.loads(Path(target).read_text())["step"], json.loads(Path(source).read_text())["step"]))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    run.write_json("summary.json", {"step": 2})
    assert replaced == [(1, 2)]
    assert {file.name for file in run.path.iterdir()} == {MARKER, "summary.json"}


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tmp_path, "demo", overwrite=False)
    run.write_json("summary.json", {"step": 1})

    def no_space(*arguments: object, **options: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", no_space)
    with pytest.raises(OSError, match="No space"):
        run.write_json("summary.json", {"step": 2})
    monkeypatch.undo()
    assert json.loads((run.path / "summary.json").read_text())["step"] == 1


# What is not a run is never removed


def model_folder(path: Path) -> dict[str, bytes]:
    """A model as `save_pretrained` leaves it; returns what is in it."""
    path.mkdir(parents=True)
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "model.safetensors").write_bytes(b"weights")
    return contents(path)


def earlier_version(path: Path) -> dict[str, bytes]:
    """A run as versions without a marker wrote it; returns what is in it."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(dataclasses.asdict(Config())))
    (path / "metrics.jsonl").write_text("")
    return contents(path)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("make", [model_folder, earlier_version])
def test_a_folder_without_the_marker_is_never_removed(
    tmp_path: Path, make: Callable[[Path], dict[str, bytes]], overwrite: bool
) -> None:
    before = make(tmp_path / "m")
    for refuses in (RunFolder.require_free, RunFolder.create):
        with pytest.raises(RunError, match="holds something that is not a run of this version"):
            refuses(tmp_path, "m", overwrite)
    assert contents(tmp_path / "m") == before


def test_a_run_is_known_before_anything_else_is_written(tmp_path: Path) -> None:
    assert is_run(RunFolder.create(tmp_path, "demo", overwrite=False).path)


def test_an_empty_folder_becomes_a_run(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    assert is_run(RunFolder.create(tmp_path, "demo", overwrite=False).path)


@pytest.mark.parametrize("failing", ["mkdir", "open"])
def test_a_run_is_still_there_when_the_new_one_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    run = a_run(tmp_path)
    before = contents(run.path)

    def fails(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, failing, fails)
        with pytest.raises(RunError, match=r"cannot make the run's folder .*: No space left on device"):
            RunFolder.create(tmp_path, "demo", overwrite=True)
    assert contents(run.path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_a_run_within_a_run_is_refused(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    for directory in (run.path, run.path / "deeper"):
        with pytest.raises(RunError, match="within another run"):
            RunFolder.require_free(directory, "inner", overwrite=True)


def test_of_two_that_start_at_once_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.setattr(RunFolder, "require_free", lambda *arguments: None)  # both looked before either wrote
    monkeypatch.setattr("tiltlm.runs.folder.is_run", lambda path: False)
    RunFolder.create(tmp_path, "demo", overwrite=False)
    with pytest.raises(RunError, match="another run was started"):
        RunFolder.create(tmp_path, "demo", overwrite=False)


# What a run reads and where it writes are apart


@pytest.mark.parametrize(
    ("place", "relation"),
    [
        ("runs/m", "is"),
        ("runs/m/model", "contains"),
        ("runs/m/deep/er", "contains"),
        ("runs", "lies in"),
        (".", "lies in"),
    ],
)
@pytest.mark.parametrize("through", ["plain", "link to the place", "link to the run", "detour"])
def test_a_run_that_overlaps_what_it_reads_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, relation: str, through: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path(place).mkdir(parents=True, exist_ok=True)
    read, run = Path(place), Path("runs/m")
    if through == "link to the place":
        read = tmp_path.with_name(f"{tmp_path.name}-link")
        read.symlink_to(Path(place).resolve())
    if through == "link to the run":
        Path("elsewhere").symlink_to("runs")
        run = Path("elsewhere/m")
    if through == "detour":
        read = Path("runs/../runs/..") / place
    with pytest.raises(RunError) as caught:
        require_apart(run, {"data.train": read})
    message = str(caught.value)
    assert f"{tmp_path.resolve() / 'runs' / 'm'} {relation} {Path(place).resolve()}," in message
    assert "data.train" in message


@pytest.mark.parametrize("place", ["runs/other", "runs/m2", "models/m", "nowhere", "pairs.jsonl"])
def test_a_run_beside_what_it_reads_is_fine(tmp_path: Path, place: str) -> None:
    for folder in ("runs/other", "runs/m2", "models/m"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "pairs.jsonl").touch()
    require_apart(tmp_path / "runs" / "m", {"model.path": tmp_path / place})


# Names


def test_the_next_free_name(tmp_path: Path) -> None:
    assert free_name(tmp_path, "demo") == "demo"
    a_run(tmp_path)
    assert free_name(tmp_path, "demo") == "demo-2"
    a_run(tmp_path, "demo-2")
    (tmp_path / "demo-3").symlink_to("nowhere")
    (tmp_path / "demo-4").write_text("a file")
    assert free_name(tmp_path, "demo") == "demo-5"


def test_a_place_in_which_no_name_is_free_ends(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    assert free_name(tmp_path / "runs", "demo") == "demo"


# Secrets


def test_settings_and_command_are_recorded_without_secrets(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "demo", overwrite=False)
    for name in ("config.json", "environment.json", "summary.json"):
        run.write_json(name, {"data": {"train": "https://me:pa55word@host/x?token=abcdef"}})
        text = (run.path / name).read_text()
        assert "pa55word" not in text and "abcdef" not in text and "host/x" in text
