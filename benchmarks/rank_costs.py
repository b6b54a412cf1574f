"""What ranks gain and lose: seconds a step on one process and on several, how long they wait, what goes over the wire.

    python benchmarks/rank_costs.py --model MODEL --data hh.jsonl --batch 16 --max-length 512 --shards 0 1 \
        --output benchmarks/results/rank-costs/NAME.json

One process and N ranks train the same steps, each rank with one thread, in turn: a round measures one process alone,
then the ranks for each value of distributed.shard. The first step is not counted. Reported are medians:

- seconds a step, and how many times fewer than one process takes (N would be all that there is to gain);
- idle: which share of their steps the ranks' processors did not work, by the processor's time of each process;
- uneven: what the plan says of it, the share that ranks wait because others have more columns to compute;
- bytes that a step sends over the loopback interface, by the system's count, and those that the collectives' sizes say.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
import tyro

from machine import Circumstances, circumstances, write_record
from tiltlm.cli.command_line import parse_config
from tiltlm.config import HubConfig
from tiltlm.data.conversion import load_examples
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.distributed.joining import joined
from tiltlm.model.kept_memory import keep_memory
from tiltlm.model.loading import layers_of
from tiltlm.pipeline.models import starting_model
from tiltlm.pipeline.setup import set_up
from tiltlm.training.loop import Trainer
from tiltlm.training.step_plans import Referenced
from tiltlm.training.stop import StopRequest

WORKER = "RANK_COSTS_WRITES_TO"
LOOPBACK = "lo"


@dataclass(frozen=True, slots=True)
class Arguments:
    """What to measure."""

    model: str
    data: str
    batch: int = 16
    max_length: int = 512
    ranks: int = 2
    shards: tuple[int, ...] = (0, 1)
    steps: int = 4
    rounds: int = 3
    output: Path | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one job the steps that count: medians of seconds, of the share of idle and uneven time, of bytes sent; and the
    weights of layers and of the rest, and micro-batches of a step, for the count of bytes."""

    ranks: int
    shard: int
    seconds: float
    idle: float
    uneven: float
    sent: float
    counted: float
    loss: float


@dataclass(frozen=True, slots=True)
class Record:
    """Every job of every round, and under what circumstances."""

    circumstances: Circumstances
    ranks: int
    rounds: tuple[tuple[Measured, ...], ...]


def main(arguments: Arguments) -> None:
    rounds = []
    for number in range(arguments.rounds):
        found = [_job(arguments, 1, 0), *(_job(arguments, arguments.ranks, shard) for shard in arguments.shards)]
        rounds.append(found)
        for one in found:
            print(f"round {number + 1}: {one}", flush=True)
    print(f"{'':>24} s a step   faster    idle  uneven  MB sent (counted)")
    for own in zip(*rounds, strict=True):
        faster = median(alone[0].seconds / one.seconds for alone, one in zip(rounds, own, strict=True))
        name = "one process" if own[0].ranks == 1 else f"{own[0].ranks} ranks, shard {own[0].shard}"
        print(
            f"{name:>24} {median(one.seconds for one in own):8.2f} {faster:8.2f} {median(one.idle for one in own):7.0%}"
            f" {median(one.uneven for one in own):7.0%} {median(one.sent for one in own) / 1e6:8.0f}"
            f" ({own[0].counted / 1e6:.0f})"
        )
    if arguments.output is not None:
        write_record(Record(circumstances("auto"), arguments.ranks, tuple(map(tuple, rounds))), arguments.output)


def _job(arguments: Arguments, ranks: int, shard: int) -> Measured:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "measured.json"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        words = [__file__, "--model", arguments.model, "--data", arguments.data, "--batch", str(arguments.batch)]
        words += ["--max-length", str(arguments.max_length), "--shards", str(shard), "--steps", str(arguments.steps)]
        environment = {**os.environ, WORKER: str(place), "OMP_NUM_THREADS": "1"}
        subprocess.run([*torchrun, *words], check=True, env=environment)
        return Measured(**json.loads(place.read_text()))


def work(arguments: Arguments, place: Path) -> None:
    """What each rank does; the first one writes what was measured."""
    keep_memory()
    words = [
        f"--model.path={arguments.model}",
        f"--data.train={arguments.data}",
        f"--data.max-length={arguments.max_length}",
        f"--training.batch-pairs={arguments.batch}",
        f"--distributed.shard={arguments.shards[0]}",
    ]
    config = parse_config(words)
    with joined(config.distributed, "cpu") as ranks:
        setup = set_up(config, ranks)
        count = arguments.batch * (arguments.steps + 1)
        examples = load_examples(arguments.data, setup.config.data, HubConfig(), "train").examples[:count]
        columns = TokenColumns.of(setup.tokenizer(examples).examples)
        pairs = Referenced(columns, np.zeros(int(columns.scored_starts[-1]), np.float32))
        held_out = Referenced(columns.take([0]), np.zeros(int(columns.take([0]).scored_starts[-1]), np.float32))
        scorer = starting_model(setup)
        weights = sum(own.numel() for own in scorer.parameters())
        layers = sum(own.numel() for layer in layers_of(scorer.model) for own in layer.parameters())
        trainer = Trainer(scorer, setup.objective, config.training, 0, setup.precision, pairs, held_out, ranks)
        rows = []
        with StopRequest() as stop:
            for step in range(arguments.steps + 1):
                planned = trainer.plan_of(step)
                ranks.any(False)
                start, worked, sent = time.perf_counter(), time.process_time(), _sent()
                row = trainer.step(planned, stop)
                seconds = time.perf_counter() - start
                idle = 1 - (time.process_time() - worked) / seconds
                rows.append((seconds, idle, 1 - planned.busy, _sent() - sent, len(planned.micro_batches), row.loss))
        every = ranks.gathered(rows)
    if ranks.first:
        counted = rows[1:]
        own = Measured(
            ranks.count,
            arguments.shards[0],
            median(row[0] for row in counted),
            median(median(row[1] for row in one[1:]) for one in every),
            median(row[2] for row in counted),
            median(row[3] for row in counted),
            median(_count(weights, layers, row[4], ranks.count, arguments.shards[0]) for row in counted),
            counted[-1][5],
        )
        place.write_text(json.dumps(dataclasses.asdict(own)))


def _count(weights: int, layers: int, passes: int, ranks: int, shard: int) -> float:
    """Bytes that all ranks send in a step by the sizes of the collectives, in float32, each by a ring.

    In each forward pass all weights are gathered within a group, in each backward pass those of layers again, and all
    gradients are added up and shared out; then they are added up over groups.
    """
    size, groups = shard or ranks, ranks // (shard or ranks)
    within = groups * (size - 1) * (2 * weights + layers)
    between = 2 * (groups - 1) * weights
    return 4.0 * passes * (within + between)


def _sent() -> int:
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == LOOPBACK:
            return int(numbers.split()[8])
    return 0


if __name__ == "__main__":
    if WORKER in os.environ:
        torch.set_num_threads(1)
        work(tyro.cli(Arguments), Path(os.environ[WORKER]))
    else:
        main(tyro.cli(Arguments, description=__doc__))
