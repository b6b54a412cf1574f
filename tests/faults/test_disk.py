"""Every call that changes the disk may fail, at any moment of a run: for want of room, or as it may not be written.

After each: one message, no file of a final name half-written, the earlier run whole unless it was replaced, and the
same command run again comes to the same result.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from broken_machine import Fault, failing, fill, read_only, require_whole, small_disk, unfinished
from broken_runs import RUN, Ended, Place, contents, result
from tiny_runs import write_model, write_pairs

from tiltlm.runs.run_files import read_run

NEW = ("--run.overwrite",)
AGAIN = 10
"""After every how many of the calls the whole command is run again."""


def require_sound(ended: Ended, place: Place, earlier: dict[str, bytes]) -> None:
    """What must hold after any fault of the disk."""
    assert ended.code == 0 or ended.sentence()
    for name in ("runs", "cache"):
        require_whole(place.path / name)
    # Under the name of the run stands the earlier one, whole, or the new one as far as it came.
    if " is whole, and in runs/.one" in ended.error:  # not even the name could be given back
        (aside,) = Path("runs").glob(".one.replaced-*")
        assert aside.name in ended.error and contents(aside) == earlier
        return
    assert (RUN / ".tiltlm-run").is_file()
    begun = (RUN / "config.json").read_bytes() if (RUN / "config.json").is_file() else None
    assert contents(RUN) == earlier or begun != earlier["config.json"]
    if (RUN / "outcome.json").is_file():
        assert place.report() == Ended(0, "")


@contextmanager
def earlier_run(place: Place) -> Iterator[tuple[Path, tuple[bytes, list[float]]]]:
    """A run that is there before; where it is kept, and its result."""
    wanted = place.wanted()
    kept = place.path / "kept"
    shutil.copytree("runs", kept)
    place.back_to(kept)
    yield kept, wanted


@pytest.mark.parametrize(
    ("error", "lasts"), [(errno.ENOSPC, False), (errno.ENOSPC, True), (errno.EROFS, True)], ids=["once", "full", "ro"]
)
def test_any_call_that_changes_the_disk_may_fail(error: int, lasts: bool, place: Place, undrawn: None) -> None:
    """The n-th call of a run that replaces an earlier one and finds no cache: of the calls of one kind the first, every
    fourth of these once, every ninth and all that follow.
    """
    with earlier_run(place) as (kept, wanted):
        earlier = contents(kept / "one")
        with failing(Fault(place.path)) as counted:
            assert place.train(*NEW) == Ended(0, "")
        calls = counted.calls
        assert result() == wanted and len(calls) > 80
        names = [re.sub("[0-9a-f]{8}", "", call) for call in calls]
        kinds = [number for number, name in enumerate(names, 1) if name not in names[: number - 1]]
        for number in kinds[:: 9 if lasts else 4]:
            place.back_to(kept)
            with failing(Fault(place.path, number, error, lasts)) as fault:
                ended = place.train(*NEW)
            assert len(fault.calls) >= number
            require_sound(ended, place, earlier)
            if error == errno.ENOSPC:
                assert unfinished(place.path) == [], calls[number - 1]
            if number % AGAIN == 0 or number == kinds[-1]:
                assert place.train(*NEW) == Ended(0, ""), calls[number - 1]
                assert result() == wanted


def test_a_disk_may_be_full_at_any_page(place: Place, undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real disk, filled but for n pages by others once the run has looked how much is free."""
    monkeypatch.setattr("tiltlm.pipeline.preflight.require_space", lambda *arguments: None)
    with small_disk(place.path, 8 << 20) as mounted:
        if not mounted:
            pytest.skip("this user may not mount a disk: only limits on the size of files are tried")
        monkeypatch.chdir(place.path)
        write_model(place.path / "tiny")
        write_pairs(place.path / "pairs.jsonl")
        wanted, failed = place.wanted(), 0
        for pages in range(0, 200, 4):
            place.back_to(None)
            fill(place.path, pages)
            ended = place.train()
            fill(place.path, 1000)
            require_whole(place.path)
            assert unfinished(place.path) == []
            if ended.code == 0 and result() == wanted:
                break
            failed += 1
            assert ended.code == 0 or ended.sentence()
            assert not (RUN / "outcome.json").is_file() or place.report() == Ended(0, "")
        assert ended == Ended(0, "") and failed > 8
        monkeypatch.chdir("/")


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """No file may be larger (EFBIG), whoever writes it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_files_may_be_too_large(place: Place, undrawn: None) -> None:
    """Each file in turn is the first that is a byte too large: also those that native code writes."""
    with earlier_run(place) as (kept, wanted):
        earlier = contents(kept / "one")
        sizes = sorted({path.stat().st_size - 1 for path in RUN.rglob("*") if path.is_file()} | {0, 50_000})
        for size in sizes[::2]:
            place.back_to(kept)
            with files_at_most(size):
                ended = place.train(*NEW)
            require_sound(ended, place, earlier)
            assert unfinished(place.path) == []
        assert place.train(*NEW) == Ended(0, "")
        assert result() == wanted


def test_a_full_disk_is_recorded_once_there_is_room_again(place: Place, undrawn: None) -> None:
    """What the saving had written so far is removed, so the run can say how it ended, and the report tells."""
    with files_at_most(50_000):  # the weights have some more
        said = place.train().sentence()
    assert "runs/one/model cannot be written" in said and "File too large" in said and "ulimit -f" in said
    outcome = read_run(RUN).outcome
    assert outcome is not None and (outcome.status, outcome.stage) == ("failed", "training")
    assert "File too large" in (outcome.message or "")
    assert place.report() == Ended(0, "")
    assert "File too large" in (RUN / "report.html").read_text()


# Folders that may not be written


@contextmanager
def as_nobody(place: Place) -> Iterator[None]:
    """For root, to whom permissions do not apply: as the user `nobody`, to whom all of the place belongs."""
    if os.geteuid():
        yield
        return
    for parent in place.path.parents[:4]:
        parent.chmod(parent.stat().st_mode | 0o055)
    for path in (place.path, *place.path.rglob("*")):
        os.chown(path, 65534, -1)
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def runs_closed(place: Place) -> None:
    Path("runs").chmod(0o555)


def run_closed(place: Place) -> None:
    RUN.chmod(0o555)


def cache_closed(place: Place) -> None:
    for path in (place.path / "cache", *(place.path / "cache").iterdir()):
        path.chmod(0o555)


@pytest.mark.parametrize(
    ("close", "words"),
    [
        (runs_closed, "cannot make the run's folder runs/one: "),
        (run_closed, "cannot make the run's folder runs/one: "),
        (cache_closed, "TILTLM_CACHE cannot be used: "),
    ],
)
def test_what_may_not_be_written_is_said_before_the_work(
    close: Callable[[Place], None], words: str, place: Place, undrawn: None
) -> None:
    wanted = place.wanted()
    before = contents(RUN)
    with as_nobody(place):
        close(place)
        said = place.train(*NEW).sentence()
        assert words in said and ("Permission denied" in said or "may not be written" in said)
    assert contents(RUN) == before and result() == wanted


@pytest.mark.parametrize(("folder", "words"), [("runs", "may not be written"), ("cache", "Read-only file system")])
def test_a_read_only_disk_is_said_before_the_work(folder: str, words: str, place: Place, undrawn: None) -> None:
    place.wanted()
    before = contents(place.path)
    with read_only(place.path / folder) as mounted:
        if not mounted:
            pytest.skip("this user may not mount a disk read-only: errors of one are injected")
        assert words in place.train(*NEW).sentence()
        assert contents(place.path) == before


def test_what_is_read_may_lie_on_a_read_only_disk(place: Place, undrawn: None) -> None:
    with as_nobody(place):
        for path in (place.path / "pairs.jsonl", place.path / "tiny", *(place.path / "tiny").iterdir()):
            path.chmod(0o555)
        assert place.train() == Ended(0, "")


def test_a_report_that_cannot_be_written_leaves_the_one_before(place: Place, undrawn: None) -> None:
    place.wanted()
    before = contents(RUN)
    with failing(Fault(place.path)) as counted:
        assert place.report() == Ended(0, "")
    for number in range(1, len(counted.calls) + 1):
        with failing(Fault(place.path, number)):
            assert "report" in place.report().sentence() or counted.calls
        assert contents(RUN) == before
