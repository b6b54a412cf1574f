"""Under what circumstances a benchmark ran, and where its figures go: what the scripts of this folder share."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from tiltlm.runs.environment import Environment, describe_environment, processor_name


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The environment as in a run's `environment.json`, and how busy the machine was.

    load_before: processes running or waiting, averaged over the last 1, 5 and 15 minutes, before the benchmark began.
    """

    environment: Environment
    load_before: tuple[float, float, float]


def circumstances(precision: str) -> Circumstances:
    """Command (as typed, from the repository root), versions, processor, date, and the machine's load."""
    device = f"{processor_name()}, {torch.get_num_threads()} threads"
    environment = describe_environment(("python", *sys.argv), device, precision)
    return Circumstances(environment, os.getloadavg())


def write_record(record: object, path: Path) -> None:
    """Writes a dataclass as JSON and says so."""
    assert dataclasses.is_dataclass(record) and not isinstance(record, type)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(record), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {shlex.quote(str(path))}")
