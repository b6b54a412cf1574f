"""What a run reads may vanish, change or be no file at all: before it looks, while it reads, and after.

A run that has read what it needs comes to the same result; one that has not says in one message what is missing.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from broken_machine import require_whole
from broken_runs import RUN, Ended, Place, result
from tiny_runs import write_pairs

from tiltlm.data.files import file_rows
from tiltlm.data.files.file_rows import read_rows
from tiltlm.errors import DataError
from tiltlm.model.reference import ReferenceCache, fill_cache
from tiltlm.pipeline import referencing, run
from tiltlm.runs.folder import RunFolder

SOURCES = Path(__file__).parents[2] / "src"


def before(module: Any, name: str, happens: Callable[[], object], patch: pytest.MonkeyPatch) -> None:
    """Something happens when a function is called for the first time, just before it does its work."""
    real, left = getattr(module, name), [happens]

    def called(*arguments: object, **named: object) -> object:
        if left:
            left.pop()()
        return real(*arguments, **named)

    patch.setattr(module, name, called)


# The cache


def cleared() -> None:
    """By another process, as a user would."""
    command = [sys.executable, "-m", "tiltlm", "cache", "--clear", "all"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(SOURCES)}, capture_output=True, text=True)
    assert done.returncode == 0 and "freed" in done.stdout, done.stderr


def removed() -> None:
    shutil.rmtree("cache")


@pytest.mark.parametrize(
    ("module", "name", "gone"),
    [
        (referencing, "reference_address", removed),
        (referencing, "fill_cache", removed),
        (ReferenceCache, "put", cleared),
        (ReferenceCache, "put", removed),
        (run, "optimize", removed),
        (run, "compare_answers", removed),
    ],
)
def test_a_cache_that_is_cleared_amid_a_run_changes_nothing(
    module: Any, name: str, gone: Callable[[], None], place: Place, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its token columns are files mapped into memory, its reference values an open database."""
    wanted = place.wanted()
    place.back_to(None)
    before(module, name, gone, monkeypatch)
    assert place.train() == Ended(0, "")
    assert result() == wanted
    if Path("cache").exists():
        require_whole(place.path / "cache")


def test_values_that_the_cache_loses_after_they_were_found_are_not_lost(
    place: Place, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some are found and some computed, and then all are gone: those that were found are as good."""
    write_pairs(place.path / "pairs.jsonl", 4)
    place.wanted()
    write_pairs(place.path / "pairs.jsonl", 12)
    shutil.copytree("cache", "kept")
    place.back_to(None)
    shutil.copytree("kept", "cache")
    wanted = place.wanted()
    place.back_to(None)
    shutil.copytree("kept", "cache")

    def lost(scorer: Any, columns: Any, cache: Any, *more: Any) -> Any:
        values = fill_cache(scorer, columns, cache, *more)
        if len(columns) == 7:  # those to train on that were not found
            with closing(sqlite3.connect(cache.path)) as other, other:
                assert other.execute("DELETE FROM token_logps").rowcount > 2 * len(columns)
        return values

    monkeypatch.setattr(referencing, "fill_cache", lost)
    assert place.train() == Ended(0, "")
    assert result() == wanted


# The run's own folder, and the model


@pytest.mark.parametrize("name", ["optimize", "evaluate", "compare_answers", "write_report"])
def test_a_run_whose_folder_is_removed_says_so(
    name: str, place: Place, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before(run, name, lambda: shutil.rmtree(RUN), monkeypatch)
    said = place.train().sentence()
    assert "runs/one" in said and ("was removed or moved" in said or "there is no run in" in said)


def test_a_model_that_is_gone_when_answers_are_compared_costs_the_answers_alone(
    place: Place, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = place.wanted()
    place.back_to(None)
    before(run, "compare_answers", lambda: shutil.rmtree("tiny"), monkeypatch)
    assert "tiny" in place.train().sentence()
    assert result() == wanted
    assert place.report() == Ended(0, "")


# The data


def no_file() -> None:
    Path("pairs.jsonl").unlink()


def a_link_to_nothing() -> None:
    no_file()
    Path("pairs.jsonl").symlink_to("gone.jsonl")


def a_folder() -> None:
    no_file()
    Path("pairs.jsonl").mkdir()


def a_pipe() -> None:
    no_file()
    os.mkfifo("pairs.jsonl")


def a_device() -> None:
    no_file()
    Path("pairs.jsonl").symlink_to("/dev/zero")


def a_broken_disk() -> None:
    """Reading the memory of a process at address 0 gives EIO, as a disk with a fault does."""
    no_file()
    Path("pairs.jsonl").symlink_to("/proc/self/mem")


@pytest.mark.parametrize(
    ("happens", "words"),
    [
        (no_file, "there is no file or folder `pairs.jsonl`"),
        (a_link_to_nothing, "is a link to `gone.jsonl`, which is not there"),
        (a_folder, "pairs.jsonl holds no data files"),
        (a_pipe, "is neither a file nor a folder"),
        (a_device, "is neither a file nor a folder"),
        (a_broken_disk, "pairs.jsonl cannot be read: Input/output error"),
    ],
)
def test_what_is_no_readable_file_is_said(happens: Callable[[], None], words: str, place: Place) -> None:
    happens()
    assert words in place.train().sentence()
    assert not Path("runs").exists()


def test_a_file_that_vanishes_after_it_was_listed_is_named(tmp_path: Path) -> None:
    rows = read_rows(write_pairs(tmp_path / "pairs.jsonl"))
    (tmp_path / "pairs.jsonl").unlink()
    with pytest.raises(DataError, match=r"pairs\.jsonl cannot be read: No such file or directory"):
        next(rows)


def test_a_file_that_vanishes_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    rows = read_rows(write_pairs(tmp_path / "pairs.jsonl", 5000))
    next(rows)
    (tmp_path / "pairs.jsonl").unlink()
    assert len(list(rows)) == 4999


def test_a_file_that_is_cut_while_it_is_read_is_listed_as_far_as_it_was_read(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "pairs.jsonl", 20_000)
    rows = read_rows(path)
    next(rows)
    os.truncate(path, 1_000_003)
    found = list(rows)
    assert 0 < len(found) < 19_999
    assert "pairs.jsonl:" in found[-1].id


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".txt"])
def test_a_disk_that_fails_amid_a_file_ends_in_a_message(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"pairs{suffix}"
    if suffix == ".csv":
        path.write_text("prompt,chosen,rejected\n" + "a,b,c\n" * 40_000)
    else:
        write_pairs(path, 5000)
    monkeypatch.setattr(file_rows, "_plain", lambda stream, compression: io.BufferedReader(_Faulty(stream.read())))
    with pytest.raises(DataError, match="cannot be read: Input/output error"):
        list(read_rows(path))


class _Faulty(io.RawIOBase):
    """Gives the first bytes of a file, and then fails."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._content.tell() > 100_000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._content.readinto(buffer)


def test_data_that_change_after_they_were_read_change_nothing(
    place: Place, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = place.wanted()
    place.back_to(None)
    before(run, "optimize", lambda: Path("pairs.jsonl").write_text("something else"), monkeypatch)
    before(RunFolder, "write_json", no_file, monkeypatch)
    assert place.train() == Ended(0, "")
    assert result() == wanted
    assert json.loads((RUN / "data_report.json").read_text())["sources"][0]["rows"] == 8


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pairs(tmp_path / "pairs.jsonl")
    path.chmod(0)
    if not os.geteuid():  # to whom permissions do not apply
        for parent in tmp_path.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o055)
        tmp_path.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(DataError, match=r"pairs\.jsonl cannot be read: Permission denied"):
            next(read_rows(path))
    finally:
        if os.getuid() != os.geteuid():
            os.seteuid(os.getuid())
