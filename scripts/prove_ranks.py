"""Holds several ranks to one process on the devices that are here: on GPUs over NCCL, without any on the CPU over gloo.

    python scripts/prove_ranks.py --ranks 8 --output benchmarks/results/prove-ranks/NAME.json

A tiny model is trained by `tiltlm train` on one process, and by torchrun in each way to share it out: whole, in
replicas, offloaded, with recomputed layers, compiled. Rows, held-out loss, answers and weights must be those of one
process, but for the order of sums, to TOLERANCE of kill_ranks.py. Exit code 1: something was not so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from kill_ranks import ROOT, TRAIN, differs, make_pattern, outcome_of

WAYS = {
    "shared out": [],
    "replicas": ["--distributed.shard", "1"],
    "offloaded": ["--distributed.offload"],
    "recomputed": ["--training.activation-checkpointing"],
    "compiled": ["--training.compile"],
}


def outcome(place: Path, pattern: Path, ranks: int, words: list[str]) -> tuple[int, str]:
    """Trains in a folder; the exit code, and what was said."""
    shutil.copytree(pattern, place)
    start = [sys.executable, "-m"]
    if ranks > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]
    environment = {**os.environ, "TILTLM_CACHE": str(place / "cache"), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [*start, "tiltlm", "train", *TRAIN, "--distributed.timeout-minutes", "2", *words],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=max(torch.cuda.device_count(), 2))
    parser.add_argument("--output", type=Path, help="JSON with what was found")
    arguments = parser.parse_args()
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pattern = make_pattern(folder)
        code, said = outcome(folder / "alone", pattern, 1, [])
        if code:
            raise RuntimeError(said[-3000:])
        wanted = outcome_of(folder / "alone")
        for name, words in WAYS.items():
            place = folder / name.replace(" ", "-")
            code, said = outcome(place, pattern, arguments.ranks, words)
            apart = differs(outcome_of(place), wanted) if code == 0 else said[-2000:]
            found[name] = f"not so: {apart}" if apart else "as one process"
            print(f"{arguments.ranks} ranks, {name}: {found[name]}", flush=True)
    if arguments.output is not None:
        devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        record = {"ranks": arguments.ranks, "devices": devices or ["cpu"], "torch": torch.__version__, "found": found}
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return int(any(words != "as one process" for words in found.values()))


if __name__ == "__main__":
    sys.exit(main())
