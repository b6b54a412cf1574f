"""What adapters cost beside full training on a CPU: memory, and pairs a second, of SmolLM2-135M on the demo's pairs.

    python benchmarks/adapter_costs.py --output benchmarks/results/adapter-costs/smollm2.json

Each way takes the same few DPO steps, each in a process of its own, so that its peak of memory is its own. The first
step is left out of the times. Memory is that of the whole process, its libraries included, from the first step on: what
loading takes for a moment is not counted where the system can forget a peak (Linux). Beside it stands what
`tiltlm plan` says of such a step.
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

import torch
import tyro

from machine import Circumstances, circumstances, write_record
from tiltlm import demo
from tiltlm.cli.console import ConsoleReporter
from tiltlm.config import AdapterConfig, Config, load_config
from tiltlm.model.memory import Way, step_memory
from tiltlm.model.scoring import score
from tiltlm.pipeline.models import starting_model, to_be_trained
from tiltlm.pipeline.prepare import prepare
from tiltlm.pipeline.setup import set_up
from tiltlm.training.loop import Trainer
from tiltlm.training.step_plans import Referenced
from tiltlm.training.stop import StopRequest

WAYS: dict[str, AdapterConfig] = {
    "full": AdapterConfig(),
    "lora": AdapterConfig(kind="lora", base_dtype="float32"),
    "lora, bfloat16 base": AdapterConfig(kind="lora", base_dtype="bfloat16"),
    "lora, nf4 base": AdapterConfig(kind="lora", quantise="nf4", base_dtype="bfloat16"),
}


@dataclass(frozen=True, slots=True)
class Arguments:
    """How much to measure."""

    output: Path | None = None
    """Where the record goes, as JSON. Unset: it is printed."""
    steps: int = 4
    pairs: int = 16
    """In a step."""
    micro_batch_tokens: int = 2048
    way: str | None = None
    """Only this one, in this process, printed as JSON; for the script itself."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes and speed of one way to train.

    before: the process, with the model and the trainer, before the first step. peak: at its highest in the steps.
    planned: what `tiltlm plan` says of a step, without what the process holds besides; static: weights, gradients and
    moments of it.
    """

    trained_parameters: int
    before: int | None
    peak: int | None
    planned: int
    static: int
    pairs_per_second: float
    losses: list[float]


@dataclass(frozen=True, slots=True)
class Record:
    circumstances: Circumstances
    arguments: Arguments
    ways: dict[str, Cost]


def settings(arguments: Arguments, adapter: AdapterConfig) -> Config:
    """The demo's, with few pairs and an adapter."""
    config = load_config(demo.CONFIG)
    data = dataclasses.replace(config.data, max_train_pairs=arguments.pairs * arguments.steps, max_eval_pairs=4)
    training = dataclasses.replace(
        config.training, batch_pairs=arguments.pairs, micro_batch_tokens=arguments.micro_batch_tokens, warmup_steps=0
    )
    return dataclasses.replace(config, data=data, training=training, adapter=adapter)


def cost(arguments: Arguments, name: str) -> Cost:
    """Of one way, in this process."""
    setup = set_up(settings(arguments, WAYS[name]))
    columns = prepare(setup, ConsoleReporter()).train
    training = setup.config.training
    start = starting_model(setup)
    values = score(start, columns, setup.precision, training.token_budget)
    policy = to_be_trained(setup, start)
    examples = Referenced(columns, values)
    trainer = Trainer(policy, setup.objective, training, 0, setup.precision, examples, examples)
    forget_peak()
    before = memory("VmRSS")
    rows = [trainer.step(trainer.plan_of(step), StopRequest()) for step in range(arguments.steps)]
    peak, timed = memory("VmHWM"), rows[1:]
    way = Way(setup.base, setup.config.adapter, setup.precision, training.optimizer, training.activation_checkpointing)
    batches = [batch for step in range(arguments.steps) for batch in trainer.plan_of(step).micro_batches]
    planned = step_memory(
        start.model.config, way, max(batches, key=lambda batch: batch.tokens_RL.numel()), torch.device("cpu")
    )
    return Cost(
        trained_parameters=planned.trained,
        before=before,
        peak=peak,
        planned=planned.total,
        static=planned.weights + planned.gradients + planned.moments,
        pairs_per_second=sum(row.examples for row in timed) / sum(row.seconds for row in timed),
        losses=[row.loss for row in rows],
    )


def forget_peak() -> None:
    """Has Linux count this process's peak of memory anew."""
    place = Path("/proc/self/clear_refs")
    if place.exists():
        place.write_text("5")


def memory(kind: str) -> int | None:
    """VmRSS: what this process holds; VmHWM: the most it held; in bytes. None where the system does not say."""
    place = Path("/proc/self/status")
    if not place.exists():
        return None
    (line,) = (line for line in place.read_text().splitlines() if line.startswith(f"{kind}:"))
    return 1024 * int(line.split()[1])


def in_its_own_process(arguments: Arguments, name: str) -> Cost:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "cost.json"
        words = ["--way", name, "--steps", str(arguments.steps), "--pairs", str(arguments.pairs)]
        words += ["--micro-batch-tokens", str(arguments.micro_batch_tokens), "--output", str(out)]
        subprocess.run([sys.executable, __file__, *words], check=True)
        table: dict[str, Any] = json.loads(out.read_text())
        return Cost(**table)


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    if arguments.way is not None:
        found = cost(arguments, arguments.way)
        assert arguments.output is not None
        arguments.output.write_text(json.dumps(dataclasses.asdict(found)))
        return
    around = circumstances(set_up(settings(arguments, WAYS["full"])).precision_why)
    ways = {}
    for name in WAYS:
        ways[name] = in_its_own_process(arguments, name)
        print(name, ways[name], flush=True)
    record = Record(around, arguments, ways)
    if arguments.output is None:
        print(json.dumps(dataclasses.asdict(record), indent=1))
    else:
        write_record(record, arguments.output)


if __name__ == "__main__":
    main()
