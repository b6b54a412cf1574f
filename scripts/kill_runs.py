"""Kills runs at random moments, lets them go on, and compares what they come to with a run that was never stopped.

    python scripts/kill_runs.py --runs 100 --output benchmarks/results/kill-runs/NAME.json

Each trial runs `tiltlm train` in a process of its own, kills it with SIGKILL, and goes on with `--resume` until the run
comes to its end. (The processes are forked from one that has imported PyTorch already, which would take most of their
time.) A trial aims at one of several moments: any within the run, the writing of a checkpoint, the
reference pass, the saving of the model, the answers. What must be equal to the bit: the files of the trained model,
every row of the metrics but its seconds, the held-out figures, the answers. Exit code 1: something was not.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RUN = Path("runs") / "run"
IMPORTED = ("tiltlm.cli", "tiltlm.cli.console", "tiltlm.pipeline.run", "transformers.models.gpt2.modeling_gpt2")
"""What takes long to import, once for all processes."""
PATIENCE = 300
"""Seconds within which a run comes to its end here, on a busy machine too."""
TRAIN = [
    *["--data.train", "pairs.jsonl", "--model.path", "model", "--run.name", "run"],
    *["--comparison.prompts", "2", "--comparison.max-new-tokens", "8", "--comparison.samples", "1"],
    *["--training.epochs", "3", "--training.batch-pairs", "12", "--training.micro-batch-tokens", "128"],
    *["--training.learning-rate", "1e-3", "--training.schedule", "cosine", "--training.warmup-steps", "3"],
    *["--training.eval-every", "6", "--checkpoint.every-steps", "4"],
]
"""Several micro-batches a step, passes that a checkpoint cuts, a schedule, evaluations between checkpoints."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Something of a run that can be seen from outside: when it begins, by the files there are."""

    name: str
    begun: Callable[[Path], bool]


def _any(pattern: str) -> Callable[[Path], bool]:
    return lambda folder: any(folder.glob(pattern))


MOMENTS = (
    Moment("anywhere", lambda folder: (folder / RUN).is_dir()),
    Moment("a checkpoint being written", _any(f"{RUN}/checkpoints/.unfinished-*")),
    Moment("a checkpoint in place", _any(f"{RUN}/checkpoints/step-*")),
    Moment("the reference pass", _any(f"{RUN}/.reference-*.safetensors")),
    Moment("the model being saved", _any(f"{RUN}/.model.partial")),
    Moment("the model in place", _any(f"{RUN}/model")),
    Moment("the held-out figures in place", _any(f"{RUN}/evaluation.json")),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """How a trial went.

    kills: at which moments, and how many seconds after they began, the run was killed.
    differences: what was not equal; empty where all was.
    """

    number: int
    kills: list[str]
    stages: list[str]
    differences: list[str]


class Process:
    """`tiltlm train` in a folder, with a cache of its own and one thread, in a process forked from this one."""

    def __init__(self, folder: Path, words: Sequence[str]) -> None:
        self.code: int | None = None
        self._number = os.fork()
        if self._number == 0:
            os._exit(_run(folder, words))  # without what this process would do at its own end

    def ended(self) -> bool:
        """Whether it has ended, and is waited for no more."""
        if self.code is None:
            number, status = os.waitpid(self._number, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if number else None
        return self.code is not None

    def kill(self) -> None:
        os.kill(self._number, signal.SIGKILL)
        while not self.ended():
            time.sleep(0.001)


def _run(folder: Path, words: Sequence[str]) -> int:
    import torch

    from tiltlm.cli import main

    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.chdir(folder)
    os.environ["TILTLM_CACHE"] = str(folder / "cache")
    torch.set_num_threads(1)
    try:
        return main(["train", *words])
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def finish(process: Process, folder: Path) -> None:
    """Waits for the end of a run.

    Raises:
        RuntimeError: it failed; the end of what it said is in the message.
    """
    until = time.monotonic() + PATIENCE
    while not process.ended():
        if time.monotonic() > until:
            process.kill()
        time.sleep(0.01)
    if process.code != 0:
        said = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"the run in {folder.name} ended with {process.code}: {said[-600:]}")


def outcome_of(folder: Path, name: Path = RUN) -> dict[str, Any]:
    """All that must be equal of a run in a folder: digests of the model's files, and records without times."""
    run = folder / name
    model = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((run / "model").iterdir())
        if path.name != "README.md"  # the card tells how long the run took
    }
    metrics = [without_times(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]
    records = {
        name: without_times(json.loads((run / name).read_text())) for name in ("evaluation.json", "comparison.json")
    }
    return {"model": model, "metrics": metrics, **records}


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key != "seconds"}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def trial(
    number: int,
    seed: int,
    pattern: Path,
    wanted: dict[str, Any],
    seconds: float,
    folder: Path,
    most: int = 3,
) -> Trial:
    """One run, killed mostly once, else more often.

    seconds: how long an unbroken one takes from when its folder is there. most: how often it is killed at most.
    """
    rng = random.Random(f"{seed} {number}")
    place = folder / f"trial-{number}"
    shutil.copytree(pattern, place)
    kills: list[str] = []
    stages: list[str] = []
    for _ in range(min(most, rng.choice((1, 1, 1, 2, 3)))):
        moment = MOMENTS[number % len(MOMENTS)] if not kills else rng.choice(MOMENTS)
        delay = rng.uniform(0, seconds) if moment.name == "anywhere" else rng.choice((0, rng.uniform(0, 0.05)))
        begun = (place / RUN / "data_report.json").is_file()
        process = Process(place, ["--resume", str(RUN)] if begun else TRAIN)
        if killed_at(process, moment, delay, place, begun):
            stages.append(stage_of(place))
            kills.append(f"{moment.name} + {delay:.3f} s")
        else:
            finish(process, place)
    begun = (place / RUN / "data_report.json").is_file()
    finish(Process(place, ["--resume", str(RUN)] if begun else TRAIN), place)
    found = outcome_of(place)
    differences = [name for name in wanted if wanted[name] != found[name]]
    if not differences:
        shutil.rmtree(place)
    return Trial(number, kills, stages, differences)


def killed_at(process: Process, moment: Moment, delay: float, place: Path, begun: bool) -> bool:
    """Kills a process after a moment of its run has begun. False: it came to its end before.

    begun: whether the run's folder was there when it started, so that it is a file that changes which is waited for.
    """
    record = place / RUN / "outcome.json"
    before = record.stat().st_mtime_ns if begun and record.is_file() else None
    while not process.ended():
        at_work = before is None or record.stat().st_mtime_ns != before
        if at_work and moment.begun(place):
            break
        time.sleep(0.0005)
    until = time.monotonic() + delay
    while not process.ended() and time.monotonic() < until:
        time.sleep(0.0005)
    if process.ended():
        return False
    process.kill()
    return True


def stage_of(place: Path) -> str:
    """The stage that a killed run was in, by its own record."""
    record = place / RUN / "outcome.json"
    return str(json.loads(record.read_text())["stage"]) if record.is_file() else "before the work"


def unbroken(pattern: Path, folder: Path) -> tuple[dict[str, Any], float]:
    """What a run comes to that is never stopped, and its seconds from when its folder is there."""
    place = folder / "unbroken"
    shutil.copytree(pattern, place)
    process = Process(place, TRAIN)
    while not process.ended() and not (place / RUN).is_dir():
        time.sleep(0.001)
    begun = time.monotonic()
    finish(process, place)
    return outcome_of(place), time.monotonic() - begun


def make_pattern(folder: Path) -> Path:
    """A folder with a tiny model and pairs of uneven lengths."""
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny_runs import write_model

    pattern = folder / "pattern"
    write_model(pattern / "model")
    rng = random.Random(0)
    rows = [
        {
            "prompt": f"Say {number} {'again ' * rng.randint(0, 6)}:",
            "chosen": " yes" * rng.randint(1, 9),
            "rejected": " no" * rng.randint(1, 9),
        }
        for number in range(72)
    ]
    (pattern / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return pattern


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 if every run that was killed came to what the unbroken one came to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="how many runs are killed, each once or more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="trials at the same time")
    parser.add_argument("--folder", type=Path, required=True, help="where the runs lie; those that differ stay")
    parser.add_argument("--output", type=Path, help="the result, as JSON")
    given = parser.parse_args(arguments)
    folder = given.folder.resolve()
    folder.mkdir(parents=True)
    pattern = make_pattern(folder)
    for module in IMPORTED:
        import_module(module)
    wanted, seconds = unbroken(pattern, folder)
    trials: list[Trial] = []
    one_trial = partial(trial, seed=given.seed, pattern=pattern, wanted=wanted, seconds=seconds, folder=folder)
    with get_context("fork").Pool(given.processes) as pool:
        while sum(bool(one.kills) for one in trials) < given.runs:
            numbers = range(len(trials), len(trials) + 2 * given.processes)
            for one in pool.imap(one_trial, numbers):
                trials.append(one)
                print(json.dumps(dataclasses.asdict(one)), flush=True)
    kills = [kill.partition(" + ")[0] for one in trials for kill in one.kills]
    result = {
        "command": f"python scripts/kill_runs.py --runs {given.runs} --seed {given.seed}",
        "versions": {name: version(name) for name in ("torch", "transformers", "safetensors")},
        "python": sys.version.split()[0],
        "kills": len(kills),
        "runs_killed": sum(bool(one.kills) for one in trials),
        "identical": sum(not one.differences for one in trials if one.kills),
        "kills_by_moment": dict(Counter(kills)),
        "kills_by_stage": dict(Counter(stage for one in trials for stage in one.stages)),
        "unbroken_seconds": round(seconds, 2),
        "trials": [dataclasses.asdict(one) for one in trials],
    }
    if given.output is not None:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(result, indent=1) + "\n")
    print({key: value for key, value in result.items() if key != "trials"})
    return int(any(one.differences for one in trials))


if __name__ == "__main__":
    sys.exit(main())
