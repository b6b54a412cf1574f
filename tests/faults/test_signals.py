"""Signals at every stage, once and twice; a terminal that is closed; output that nobody takes; limits of the system."""

from __future__ import annotations

import errno
import io
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from broken_machine import require_whole, unfinished
from broken_runs import OPTIONS, RUN, Ended, Place, result

from tiltlm.pipeline import keeping, optimize, referencing, run
from tiltlm.runs.run_files import read_run
from tiltlm.training import loop
from tiltlm.training.stop import SIGNALS, StopRequest

SOURCES = Path(__file__).parents[2] / "src"

STAGES: list[tuple[Any, str, str | None]] = [
    (run, "set_up", None),
    (run, "prepare", None),
    (run, "starting_model", "reference"),
    (referencing, "fill_cache", "reference"),
    (optimize, "run_checks", "training"),
    (loop, "backward", "training"),
    (keeping, "save_model", "training"),
    (run, "evaluate", "evaluation"),
    (run, "compare_answers", "comparison"),
    (run, "write_report", "comparison"),
]


def signalling(module: Any, name: str, numbers: list[int], patch: pytest.MonkeyPatch) -> None:
    """Signals come just before a function does its work for the first time."""
    real, left = getattr(module, name), [numbers]

    def called(*arguments: object, **named: object) -> object:
        for number in left.pop() if left else []:
            os.kill(os.getpid(), number)
        return real(*arguments, **named)

    patch.setattr(module, name, called)


@pytest.fixture(autouse=True)
def a_hangup_is_not_ignored() -> Iterator[None]:
    """Also where the tests run under `nohup`, whose processes, and theirs, ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("module", "name", "stage"), STAGES, ids=[name for _, name, _ in STAGES])
@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]], ids=["once", "twice"])
def test_a_signal_at_any_stage(
    numbers: list[int],
    module: Any,
    name: str,
    stage: str | None,
    place: Place,
    undrawn: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ends with 130; what there is of the run is whole, and can be reported; and the command can be run again."""
    signalling(module, name, numbers, monkeypatch)
    ended = place.train()
    assert ended.code == 130, ended
    assert "Traceback" not in ended.error and ended.error.count("\n") <= 2
    if stage is None:
        assert not RUN.exists()
    else:
        require_whole(RUN)
        assert unfinished(RUN) == []
        outcome = read_run(RUN).outcome
        # One signal within a step lets it end, and the saved model be evaluated.
        assert outcome is not None and outcome.stage in (stage, "evaluation" if name == "backward" else stage)
        assert place.report() == Ended(0, "")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "handlers are put back"


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_that_asks_to_end_is_one_to_stop_after_the_step(
    number: signal.Signals, place: Place, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    signalling(loop, "backward", [number], monkeypatch)
    assert place.train() == Ended(130, "")
    summary = read_run(RUN).summary
    assert summary is not None and (summary.status, summary.steps) == ("interrupted", 1)
    assert (RUN / "model" / "model.safetensors").is_file()


def test_a_hangup_that_was_to_be_ignored_is_ignored() -> None:
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_closed_loses_no_step(place: Place) -> None:
    """A real one: its session is hung up, and nothing can be written to it any more."""
    own, terminal = pty.openpty()
    command = [sys.executable, "-m", "tiltlm", "train", *OPTIONS, "--training.max-steps", "100000"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"}
    # Of a session of its own, whose terminal this one becomes as the first that it opens.
    program = f"import os, sys; os.setsid(); os.close(os.open({os.ttyname(terminal)!r}, os.O_RDWR)); "
    program += "os.execv(sys.argv[1], sys.argv[1:])"
    started = subprocess.Popen(
        [sys.executable, "-c", program, *command], stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    )
    os.close(terminal)
    metrics, deadline = RUN / "metrics.jsonl", time.monotonic() + 120
    os.set_blocking(own, False)
    while not (metrics.exists() and metrics.read_text().count("\n") > 3):
        assert started.poll() is None and time.monotonic() < deadline
        try:
            os.read(own, 1 << 16)
        except BlockingIOError:
            time.sleep(0.1)
    os.close(own)
    started.wait(120)
    summary = read_run(RUN).summary
    assert summary is not None and summary.status == "interrupted" and (summary.steps or 0) > 0
    assert (RUN / "model" / "model.safetensors").is_file()
    require_whole(RUN)


# Output that nobody takes


class Full(io.StringIO):
    """A pipe that is full, and does not wait."""

    def write(self, text: str) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


class HungUp(io.StringIO):
    """A terminal that is gone."""

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("kind", [Full, HungUp])
def test_training_outlives_its_output(
    kind: Callable[[], io.StringIO], place: Place, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = place.wanted()
    place.back_to(None)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", kind())
        assert "standard output cannot be written" in place.train().sentence()
    assert result() == wanted
    summary = read_run(RUN).summary
    assert summary is not None and summary.completed


# Limits


@contextmanager
def files_open_at_most(number: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_few_open_files_are_said(place: Place, undrawn: None) -> None:
    wanted = place.wanted()
    said, more = [], 0
    while True:
        place.back_to(None)
        free = os.dup(0)
        os.close(free)
        with files_open_at_most(free + more):
            ended = place.train()
        require_whole(place.path)
        if ended.code == 0 and result() == wanted:
            break
        if ended.code:
            said.append(ended.sentence())
        more += 1
    assert said and more < 20
    assert all("oo many open files" in words or "unable to open database file" in words for words in said), said
