"""Where the time of a training step goes on a CPU, by kind of work, and how near it is to the peak.

    python benchmarks/step_profile.py --model MODEL --data pairs.jsonl --batch 8 --max-length 512 \
        --output benchmarks/results/speed/avx512-smollm2-hh-profile.json

Steps are those of `tiltlm train` in the arithmetic that `auto` chooses, with reference values of zero, which cost the
same. After steps that warm memory, some are timed as they are and one more is run under PyTorch's profiler: shares are
of the profiler's own seconds, in which small operations weigh more than they do without it.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from torch.profiler import profile

from machine import Circumstances, circumstances, write_record
from tiltlm.bench.arithmetic import forward_cost, step_work
from tiltlm.bench.matrix_peak import matrix_peak
from tiltlm.cli.command_line import parse_config
from tiltlm.config import HubConfig
from tiltlm.data.conversion import load_examples
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.kept_memory import keep_memory
from tiltlm.pipeline.models import starting_model
from tiltlm.pipeline.setup import set_up
from tiltlm.plan.batches import Plan
from tiltlm.training.loop import Trainer
from tiltlm.training.step_plans import Referenced
from tiltlm.training.stop import StopRequest

KINDS = {
    "attention by blocks": ("_BlockAttention",),
    "output layer and softmax": ("_ChunkedLogps",),
    "norms": ("_RMSNorm",),
    "optimizer and gradient norm": ("Optimizer.step", "aten::_fused_adam", "aten::linalg_vector_norm", "aten::stack"),
}
"""Of an operation within another of these names, whatever it is itself."""
PRODUCTS = ("aten::mm", "aten::addmm")
COPIES = ("aten::copy_", "aten::_to_copy", "aten::to", "aten::clone", "aten::contiguous", "aten::empty", "aten::fill_")


@dataclass(frozen=True, slots=True)
class Arguments:
    """What to measure."""

    model: str
    data: str
    batch: int = 8
    max_length: int = 512
    warm: int = 4
    steps: int = 4
    output: Path | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """Where time went.

    seconds: of each timed step. useful: operations that they needed (docs/speed.md), a second, over all of them.
    peak: operations a second of square matrices. shares: of the profiled time, by kind of work.
    """

    circumstances: Circumstances
    arguments: Arguments
    tokens: int
    seconds: tuple[float, ...]
    useful: float | None
    peak: float
    shares: dict[str, float]


def main(arguments: Arguments) -> None:
    """Measures, prints the shares and writes them."""
    keep_memory()
    around = circumstances("auto")
    trainer, pairs = _trainer(arguments)
    order = [trainer.plan_of.order.step(step) for step in range(arguments.warm + arguments.steps + 1)]
    timed = order[arguments.warm : -1]
    plans = [trainer.plan_of(step) for step in range(len(order))]
    seconds, shares = _measured(trainer, plans, arguments)
    cost = forward_cost(trainer.scorer.model)
    work = [step_work(cost, pairs.columns, examples.tolist()) for examples in timed]
    needed = None if cost is None else 3 * sum(one.forward or 0.0 for one in work)
    found = Profile(
        around,
        dataclasses.replace(arguments, output=None),
        sum(plan.laid_out for plan in plans[arguments.warm : -1]),
        tuple(seconds),
        None if needed is None else needed / sum(seconds),
        matrix_peak(trainer.scorer.device, trainer.precision),
        shares,
    )
    for kind, share in shares.items():
        print(f"{share:6.1%}  {kind}")
    print(
        f"{sum(seconds) / len(seconds):.2f} s a step; {found.useful or 0:.3g} of {found.peak:.3g} operations a second"
    )
    if arguments.output is not None:
        write_record(found, arguments.output)


def _trainer(arguments: Arguments) -> tuple[Trainer, Referenced]:
    words = [
        f"--model.path={arguments.model}",
        f"--data.train={arguments.data}",
        f"--data.max-length={arguments.max_length}",
        f"--training.batch-pairs={arguments.batch}",
    ]
    setup = set_up(parse_config(words))
    count = arguments.batch * (arguments.warm + arguments.steps + 1)
    examples = load_examples(arguments.data, setup.config.data, HubConfig(), "train").examples[:count]
    columns = TokenColumns.of(setup.tokenizer(examples).examples)
    pairs = Referenced(columns, np.zeros(int(columns.scored_starts[-1]), np.float32))
    scorer = starting_model(setup)
    trainer = Trainer(scorer, setup.objective, setup.config.training, 0, setup.precision, pairs, pairs)
    return trainer, pairs


def _measured(trainer: Trainer, plans: Sequence[Plan], arguments: Arguments) -> tuple[list[float], dict[str, float]]:
    """Seconds of the timed steps, and the shares of the one under the profiler."""
    seconds = []
    with StopRequest() as stop:
        for plan in plans[:-1]:
            start = time.perf_counter()
            trainer.step(plan, stop)
            seconds.append(time.perf_counter() - start)
        with profile() as profiled:
            trainer.step(plans[-1], stop)
    spent: Counter[str] = Counter()
    for event in profiled.events():
        spent[_kind(event)] += event.self_cpu_time_total
    return seconds[arguments.warm :], {kind: own / spent.total() for kind, own in spent.most_common()}


def _kind(event: Any) -> str:
    """What an operation is counted as: by what it is part of, else by itself."""
    within = event
    while within is not None:
        for kind, names in KINDS.items():
            if within.name.startswith(names):
                return kind
        within = within.cpu_parent
    if event.name in PRODUCTS:
        return "products of the linear layers"
    if event.name in COPIES:
        return "casts, copies and zeros"
    return "activations, rotary positions, residuals and the rest"


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
