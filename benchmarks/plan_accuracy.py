"""How far `tiltlm plan` is off: peak memory and time by stage, foretold and then measured on a few steps.

    python benchmarks/plan_accuracy.py --model MODEL --hh HH.jsonl --uf UF.jsonl --pr PR.jsonl \
        --output benchmarks/results/plan/smollm2.json

Each case is planned, with its calibration, and then trained, each in a process of its own, on so many pairs that a few
steps take them all. Files hold pairs as prompt, chosen, rejected: HH (8 pairs a step, 512 tokens), UltraFeedback (8,
1,024), polite-rude (32, 512); HH with a LoRA adapter besides. Memory is the whole process's largest resident memory, as
a run records it.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from machine import Circumstances, circumstances, write_record
from tiltlm.cli.command_line import parse_config
from tiltlm.cli.console import ConsoleReporter
from tiltlm.pipeline.sizing.planning import plan_run


@dataclass(frozen=True, slots=True)
class Arguments:
    """What to measure."""

    model: str
    hh: str | None = None
    uf: str | None = None
    pr: str | None = None
    steps: int = 4
    output: Path | None = None
    """Where the record goes, as JSON. Unset: it is printed."""
    plan: str | None = None
    """For the script itself: settings as words in JSON, to be planned in this process."""


@dataclass(frozen=True, slots=True)
class Case:
    """One file: bytes at the peak and seconds by stage, foretold and measured."""

    words: list[str]
    planned_bytes: int
    measured_bytes: int | None
    planned_seconds: dict[str, float]
    measured_seconds: dict[str, float]

    @property
    def memory_ratio(self) -> float | None:
        return None if self.measured_bytes is None else self.planned_bytes / self.measured_bytes


@dataclass(frozen=True, slots=True)
class Record:
    circumstances: Circumstances
    cases: dict[str, Case]
    memory_ratios: dict[str, float | None]
    time_ratios: dict[str, float]


def words_of(arguments: Arguments) -> dict[str, list[str]]:
    """The settings of each case whose file is named."""
    kinds = {"hh": (arguments.hh, 8, 512), "uf": (arguments.uf, 8, 1024), "pr": (arguments.pr, 32, 512)}
    found = {}
    for name, (file, pairs, length) in kinds.items():
        if file is not None:
            words = ["--model.path", arguments.model, "--data.train", file, "--data.max-length", str(length)]
            words += ["--training.batch-pairs", str(pairs), "--data.max-train-pairs", str(pairs * arguments.steps)]
            found[name] = [*words, "--data.max-eval-pairs", "16", "--comparison.prompts", "4"]
    if "hh" in found:
        found["hh, lora"] = [*found["hh"], "--adapter.kind", "lora"]
    return found


def planned(words: list[str]) -> tuple[int, dict[str, float]]:
    """Bytes and seconds that a plan tells, in this process."""
    found = plan_run(parse_config(words), ConsoleReporter(), calibrated=True)
    return found.ways[0].run.most, {one.name: one.seconds for one in found.times}


def case(arguments: Arguments, words: list[str]) -> Case:
    """Plans and trains in processes of their own."""
    with tempfile.TemporaryDirectory() as scratch:
        told = Path(scratch) / "plan.json"
        own = [sys.executable, __file__, "--model", arguments.model, "--plan", json.dumps(words)]
        subprocess.run([*own, "--output", str(told)], check=True)
        subprocess.run([sys.executable, "-m", "tiltlm", "train", *words, "--run.directory", scratch], check=True)
        outcome: dict[str, Any] = json.loads((Path(scratch) / "run" / "outcome.json").read_text())
        most, seconds = json.loads(told.read_text())
    peak = outcome["peak_memory_gib"]
    return Case(words, most, None if peak is None else round(peak * 2**30), seconds, outcome["stages"])


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    if arguments.plan is not None:
        assert arguments.output is not None
        arguments.output.write_text(json.dumps(planned(json.loads(arguments.plan))))
        return
    cases = {}
    for name, words in words_of(arguments).items():
        cases[name] = case(arguments, words)
        print(name, cases[name].memory_ratio, cases[name], flush=True)
    times = {
        name: sum(one.planned_seconds.values())
        / sum(one.measured_seconds.get(stage, 0) for stage in one.planned_seconds)
        for name, one in cases.items()
    }
    record = Record(circumstances(""), cases, {name: one.memory_ratio for name, one in cases.items()}, times)
    if arguments.output is None:
        print(json.dumps(dataclasses.asdict(record), indent=1))
    else:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_record(record, arguments.output)


if __name__ == "__main__":
    main()
