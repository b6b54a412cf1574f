"""Ends single ranks of running jobs at random moments, and sees that the jobs end or go on as they should.

    python scripts/kill_ranks.py --trials 20 --output benchmarks/results/kill-ranks/NAME.json

Each trial is `torchrun --nproc-per-node 2 -m tiltlm train` on a tiny model. What is done to a rank, in turn:

- killed, with restarts left: torchrun starts the job anew, which goes on from its last checkpoint by itself.
- killed, without restarts: the job ends with an error that says that a rank was lost, and torchrun names which. A job
  that resumes it comes to its end.
- stopped (SIGSTOP), as a machine that hangs: the others end the job after distributed.timeout_minutes.
- told to end (SIGTERM): all ranks stop after a step that they take together and keep a checkpoint, and the job goes on.

In the end each must have the rows, held-out loss, answers and weights of a job that nothing happened to, within
TOLERANCE: the order of sums differs. Exit code 1: something was not so.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RUN = Path("runs") / "run"
RANKS = 2
TIMEOUT = 10.0
"""Seconds after which a silent rank is given up."""
PATIENCE = 180
"""Seconds within which a job ends, on a busy machine too."""
TOLERANCE = 1e-3
TRAIN = [
    *["--data.train", "pairs.jsonl", "--model.path", "model", "--run.name", "run", "--model.precision", "float32"],
    *["--comparison.prompts", "3", "--comparison.max-new-tokens", "4", "--comparison.samples", "1"],
    *["--training.max-steps", "120", "--training.batch-pairs", "5", "--training.micro-batch-tokens", "128"],
    *["--training.learning-rate", "1e-4", "--training.eval-every", "40", "--checkpoint.every-steps", "10"],
    *["--distributed.timeout-minutes", str(TIMEOUT / 60)],
]
_AT_FIRST = {1: "accuracy"}
DEEDS = ("killed, restarts left", "killed", "told to end", "killed, restarts left", "stopped")


@dataclass(frozen=True, slots=True)
class Trial:
    """How a trial went: what was done to which rank after which step, what was seen, and what was wrong."""

    number: int
    deed: str
    rank: int
    step: int
    seconds: float
    said: str
    wrong: list[str]


class Job:
    """`torchrun ... -m tiltlm train` in a folder, with a cache of its own and one thread a rank."""

    def __init__(self, folder: Path, words: Sequence[str], restarts: int = 0) -> None:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
        command = [*torchrun, f"--max-restarts={restarts}", "-m", "tiltlm", "train", *words]
        environment = {
            **os.environ,
            "TILTLM_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        }
        self._log = folder / "log.txt"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)

    def ranks(self) -> dict[int, int]:
        """The process of each rank."""
        found: dict[int, int] = {}
        for place in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if int((place / "stat").read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    settings = dict(
                        line.partition("=")[::2] for line in (place / "environ").read_text().split("\0") if line
                    )
                    found[int(settings["RANK"])] = int(place.name)
        return found

    def wait(self) -> int | None:
        """Its exit code; None where it did not end in time, and was ended."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.end()
            return None

    def end(self) -> None:
        """Ends it and its ranks."""
        for number in (*self.ranks().values(), self.process.pid):
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)
        self.process.wait()

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


def outcome_of(folder: Path) -> dict[str, Any]:
    """What must be equal: rows, held-out loss, answers, weights.

    Rows without their seconds, without the tokens laid out (trees in different rows do not share what they have in
    common), and the first step's without accuracy: its rewards are zero but for rounding.
    """
    from safetensors.torch import load_file

    run = folder / RUN
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    weights = load_file(run / "model" / "model.safetensors")
    return {
        "rows": [
            {
                name: value
                for name, value in row.items()
                if name not in ("seconds", "tokens", _AT_FIRST.get(row["step"]))
            }
            for row in rows
        ],
        "held-out loss": json.loads((run / "evaluation.json").read_text())["figures"]["loss"],
        "answers": json.loads((run / "comparison.json").read_text())["prompts"],
        "weights": {name: own.float().flatten().tolist() for name, own in weights.items()},
    }


def differs(found: Any, wanted: Any) -> bool:
    """Whether numbers in nested containers differ by more than TOLERANCE, or anything else at all."""
    if isinstance(wanted, dict):
        return found.keys() != wanted.keys() or any(differs(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(found) != len(wanted) or any(map(differs, found, wanted))
    if isinstance(wanted, float) and isinstance(found, float):
        return abs(found - wanted) > TOLERANCE * max(1.0, abs(wanted))
    return bool(found != wanted)


def steps_of(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return sum('"kind": "train"' in line for line in (folder / RUN / "metrics.jsonl").read_text().splitlines())
    return 0


def trial(number: int, seed: int, pattern: Path, wanted: dict[str, Any], folder: Path) -> Trial:
    """One job to whose rank something is done."""
    rng, deed = random.Random(f"{seed} {number}"), DEEDS[number % len(DEEDS)]
    rank, step, place = rng.randrange(RANKS), rng.choice((0, rng.randrange(1, 110))), folder / f"trial-{number}"
    shutil.copytree(pattern, place)
    start = time.monotonic()
    job = Job(place, TRAIN, restarts=1 if deed.endswith("left") else 0)
    while job.process.poll() is None and (not (place / RUN / "data_report.json").is_file() or steps_of(place) < step):
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.5) if step == 0 else 0)
    done, wrong = job.ranks(), []
    if rank not in done:
        return Trial(number, deed, rank, step, 0.0, "the job ended before", ["nothing was done to it"])
    signals = {"told to end": signal.SIGTERM, "stopped": signal.SIGSTOP}
    os.kill(done[rank], signals.get(deed, signal.SIGKILL))
    since = time.monotonic()
    code = job.wait()
    took, said = time.monotonic() - since, job.said()
    if deed == "stopped":
        with contextlib.suppress(OSError):
            os.kill(done[rank], signal.SIGKILL)
    if code is None:
        wrong.append("it did not end")
    elif deed.endswith("left") and code != 0:
        wrong.append("it did not go on by itself")
    elif not deed.endswith("left"):
        if code == 0 and deed != "told to end":
            wrong.append("it ended as if nothing had happened")
        if deed == "told to end" and not any((place / RUN / "checkpoints").glob("step-*")) and steps_of(place):
            wrong.append("no checkpoint was kept")
        resumable = (place / RUN / "data_report.json").is_file()
        if Job(place, ["--resume", str(RUN)] if resumable else TRAIN).wait() != 0:
            wrong.append("it could not be resumed")
    if not wrong:
        found = outcome_of(place)
        wrong += [f"other {name}" for name in wanted if differs(found[name], wanted[name])]
    if not wrong:
        shutil.rmtree(place)
    lines = [line for line in said.splitlines() if line.startswith("tiltlm:")]
    print(f"{number}: rank {rank} {deed} after step {step}: {wrong or 'as it should'} ({took:.1f} s)", flush=True)
    return Trial(
        number,
        deed,
        rank,
        step,
        round(time.monotonic() - start, 1),
        " ".join(lines[:2]).replace(f"{folder}/", ""),
        wrong,
    )


def make_pattern(folder: Path) -> Path:
    """A folder with a tiny model and pairs."""
    sys.path.insert(0, str(ROOT / "tests"))
    tiny_runs = import_module("tiny_runs")
    place = folder / "pattern"
    place.mkdir()
    tiny_runs.write_model(place / "model")
    tiny_runs.write_pairs(place / "pairs.jsonl", 60)
    return place


def unbroken(pattern: Path, folder: Path) -> dict[str, Any]:
    """What a job comes to that nothing happens to."""
    place = folder / "unbroken"
    shutil.copytree(pattern, place)
    job = Job(place, TRAIN)
    if job.wait() != 0:
        raise RuntimeError(job.said()[-3000:])
    return outcome_of(place)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON with every trial")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pattern = make_pattern(folder)
        wanted = unbroken(pattern, folder)
        trials = [trial(number, arguments.seed, pattern, wanted, folder) for number in range(arguments.trials)]
    right = sum(not one.wrong for one in trials)
    print(f"{right} of {len(trials)} as they should")
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        record = {"ranks": RANKS, "seed": arguments.seed, "trials": [dataclasses.asdict(one) for one in trials]}
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if right == len(trials) else 1


if __name__ == "__main__":
    sys.exit(main())
