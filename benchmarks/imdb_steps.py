"""Commands that need each other, several at once. What is done is not done again, what fails leaves the rest alone."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

LAST_WORDS = 400
"""Characters of a failed command's log that are kept in the record."""


Running = dict[str, tuple[subprocess.Popen[bytes], float]]
"""Processes by the name of their step, and when they began."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command.

    words: after `python`. needs: steps whose results it reads. after: steps that must not be under way or to come.
    reads: text that decides what it does besides, such as its file of settings.
    """

    name: str
    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    reads: str = ""


@dataclass(slots=True)
class Outcome:
    """What became of the steps. seconds: of those that came to their end, also in an earlier call. failed: why, by
    name. left_out: those that were not begun, as what they need is missing or no time was left."""

    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def run_steps(steps: Sequence[Step], folder: Path, jobs: int, until: float) -> Outcome:
    """Runs the steps, in their order where more are ready than may run at once.

    What a step prints is kept in `logs/NAME.log`. Where it succeeded, `done/NAME.json` says so, with a digest of its
    command and those of all that it needs: if one is changed, it is done anew, as far as the command replaces what it
    left (files of answers refuse other weights). What scripts and data hold is not in it: changed, they ask for another
    folder.

    Args:
        until: no step begins after this time (time.monotonic()).
    """
    outcome, waiting = Outcome(), list(steps)
    running: Running = {}
    digests: dict[str, str] = {}
    for step in steps:
        digests[step.name] = _digest(step, [digests[one] for one in step.needs])
    try:
        while waiting or running:
            _finish(running, digests, folder, outcome)
            for step in list(waiting):
                ready = _ready(step, waiting, running, outcome)
                if ready and (known := _done(folder, step.name, digests[step.name])) is not None:
                    outcome.seconds[step.name] = known
                elif ready is False or (ready and time.monotonic() > until):
                    outcome.left_out.append(step.name)
                elif ready and len(running) < jobs:
                    running[step.name] = (_begin(step, folder, jobs), time.monotonic())
                    _say(f"begins: {step.name}")
                else:
                    continue
                waiting.remove(step)
            time.sleep(0.05)
    finally:
        for process, _ in running.values():
            process.terminate()
            process.wait()
    return outcome


def _ready(step: Step, waiting: list[Step], running: Running, outcome: Outcome) -> bool | None:
    """Whether a step can begin; False where it never can, and None where it is to wait."""
    if any(one in outcome.failed or one in outcome.left_out for one in step.needs):
        return False
    to_come = {one.name for one in waiting} | set(running)
    return None if to_come & {*step.needs, *step.after} else True


def _begin(step: Step, folder: Path, jobs: int) -> subprocess.Popen[bytes]:
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    with (logs / f"{step.name}.log").open("wb") as log:
        command = [sys.executable, *step.words]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**threads, **os.environ})


def _finish(running: Running, digests: dict[str, str], folder: Path, outcome: Outcome) -> None:
    """Takes in the steps that came to their end."""
    for name, (process, begun) in list(running.items()):
        code = process.poll()
        if code is None:
            continue
        del running[name]
        seconds = round(time.monotonic() - begun, 1)
        if code:
            said = (folder / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")
            outcome.failed[name] = f"exit status {code}: {said.strip()[-LAST_WORDS:]}"
            _say(f"FAILED after {seconds} s: {name}: see logs/{name}.log")
            continue
        outcome.seconds[name] = seconds
        place = folder / "done" / f"{name}.json"
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps({"digest": digests[name], "seconds": seconds}) + "\n", encoding="utf-8")
        _say(f"done in {seconds} s: {name}")


def _digest(step: Step, needed: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps([step.words, step.reads, *needed]).encode("utf-8")).hexdigest()


def _done(folder: Path, name: str, digest: str) -> float | None:
    """The seconds that a step took, if it is done as it is to be."""
    place = folder / "done" / f"{name}.json"
    if not place.is_file():
        return None
    kept = json.loads(place.read_text(encoding="utf-8"))
    return float(kept["seconds"]) if kept["digest"] == digest else None


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
