"""Whole small runs in each arithmetic with one and two threads, and digests of what they left: a program of its own.

    python tests/repeated_runs.py MODEL PAIRS FOLDER ORDER

The runs go to FOLDER, each with a cache of its own; ORDER is `forwards` or `backwards`. One line of JSON is printed:
the digest of every file that a run makes, by run and file. Times are left out, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from tiltlm.cli import main

RUNS = [(precision, threads) for precision in ("float32", "bfloat16") for threads in (1, 2)]
TIMES = frozenset({"seconds", "started", "stages", "pairs_per_second", "tokens_per_second", "peak_memory_gib"})
"""What a clock or the machine's memory says."""
OWN = frozenset({"command", "run", "directory"})
"""What names the run itself."""
OPTIONS = {
    "data.max-length": "160",
    "training.max-steps": "4",
    "training.batch-pairs": "12",
    "training.micro-batch-tokens": "1024",
    "training.learning-rate": "1e-3",
    "training.eval-every": "2",
    "comparison.prompts": "1",
    "comparison.samples": "1",
    "comparison.max-new-tokens": "4",
}


def timeless(value: Any) -> Any:
    """A record without what may differ."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in TIMES | OWN}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of every file of a run; of records without their times."""
    found = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix in (".json", ".jsonl") and path.parent == run:
            lines = content.splitlines() if path.suffix == ".jsonl" else [content]
            content = json.dumps([timeless(json.loads(line)) for line in lines], sort_keys=True).encode()
        if path.suffix != ".html" and path.name != "README.md":  # pages of the same records, with times in them
            found[str(path.relative_to(run))] = hashlib.sha256(content).hexdigest()
    return found


def repeat(model: str, pairs: str, folder: Path, backwards: bool) -> dict[str, dict[str, str]]:
    """The digests of each run."""
    found = {}
    for precision, threads in reversed(RUNS) if backwards else RUNS:
        name = f"{precision}-{threads}"
        torch.set_num_threads(threads)
        os.environ["TILTLM_CACHE"] = str(folder / f"cache-{name}")
        options = ["--data.train", pairs, "--model.path", model, "--model.precision", precision]
        options += [word for option, value in OPTIONS.items() for word in (f"--{option}", value)]
        with contextlib.redirect_stdout(sys.stderr):
            assert main(["train", "--run.directory", str(folder), "--run.name", name, *options]) == 0
        found[name] = digests(folder / name)
    return found


if __name__ == "__main__":
    given_model, given_pairs, given_folder, order = sys.argv[1:]
    print(json.dumps(repeat(given_model, given_pairs, Path(given_folder), order == "backwards")))
