"""What a checkpoint costs: the copy that the steps wait for, and the writing, which they do not wait for.

    python benchmarks/checkpoint_costs.py --output benchmarks/results/checkpoint-costs/smollm2.json

Of SmolLM2-135M with AdamW's moments, as after a step of training. Written is to the disk: synced, read back for its
checksums, named.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

from machine import Circumstances, circumstances, write_record
from tiltlm.checkpoints.checkpoint_folder import Circumstances as Recorded
from tiltlm.checkpoints.checkpoint_folder import verified, write_checkpoint
from tiltlm.config import HubConfig, TrainingConfig
from tiltlm.model.finding import EMBEDDED, find_model
from tiltlm.model.scorer import Scorer
from tiltlm.model.weights import load_model
from tiltlm.runs.checkpoint_record import StoredFile
from tiltlm.training.optimization import OPTIMIZERS
from tiltlm.training.state import Progress, TrainerState, random_states


@dataclass(frozen=True, slots=True)
class Arguments:
    """How often to measure."""

    output: Path | None = None
    """Where the record goes, as JSON. Unset: it is printed."""
    times: int = 5


@dataclass(frozen=True, slots=True)
class Record:
    """Seconds, medians and all of them.

    copy: of the state, which a step waits for. written: of the copy, in a thread of its own. verified: reading it whole
    and comparing checksums, once when a run goes on. gigabytes: of a checkpoint.
    """

    circumstances: Circumstances
    arguments: Arguments
    copy: float
    written: float
    verified: float
    gigabytes: float
    copies: list[float]
    writings: list[float]


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def state_after_a_step() -> TrainerState:
    """Weights and moments; of gradients that are zero, which take as much room as others."""
    scorer = Scorer(load_model(find_model(EMBEDDED, HubConfig()), torch.device("cpu")))
    optimizer = OPTIMIZERS["adamw"](scorer.parameters(), TrainingConfig())
    for parameter in scorer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    model = {name: parameter.detach() for name, parameter in scorer.model.named_parameters()}
    return TrainerState(model, optimizer.state_dict(), Progress(1, 16, 4096, 1.0), random_states())


def main(arguments: Arguments) -> None:
    before, state = circumstances("float32"), state_after_a_step()
    copies = [timed(state.copy) for _ in range(arguments.times)]
    recorded = Recorded(StoredFile(bytes=0, xxh3_128=""), None, {}, {})
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        writings = [timed(lambda: write_checkpoint(Path(folder), state, recorded)) for _ in range(arguments.times)]
        (checkpoint,) = Path(folder).iterdir()
        looked = timed(lambda: verified(checkpoint))
        size = sum(file.stat().st_size for file in checkpoint.iterdir())
    record = Record(
        circumstances=before,
        arguments=replace(arguments, output=None),
        copy=statistics.median(copies),
        written=statistics.median(writings),
        verified=looked,
        gigabytes=size / 1e9,
        copies=copies,
        writings=writings,
    )
    if arguments.output is not None:
        write_record(record, arguments.output)
    print(record)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
