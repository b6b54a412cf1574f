"""What the stages of preference training cost, as ratios within one run on one machine.

DPO scores answers that are already there. Methods that learn from the policy's own samples must first generate them,
token by token; and a reference that is not cached must be run beside the policy. This script times these stages on the
same pairs of the demo, with the package's own functions and the demo's settings, in float32. From the repository root:

    python benchmarks/step_costs.py --output benchmarks/results/step-costs/smollm2-135m.json

Stages, all over the same pairs:

  sampling    as many answers as the pairs have, of one fixed length: the pairs' mean, so that as many tokens are
              generated as are scored; all in one batch, keys and values cached
  reference   one forward scoring pass, written to an empty cache
  training    forward, backward and optimizer steps, with the reference's values at hand
  lookup      what finding cached values takes: the fingerprint of the weights, and reading the values

Stages take turns, in an order that rotates, so that a machine that gets slower is slower for all. Peak memory is then
measured in fresh processes, one at a time: training with cached values, and with a second, live reference in memory.
"""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch.optim.optimizer import register_optimizer_step_post_hook

from machine import Circumstances, circumstances, write_record
from tiltlm import demo
from tiltlm.config import Config, HubConfig, load_config
from tiltlm.data.conversion import load_examples
from tiltlm.data.splitting import subsample
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.evaluation.generation import GenerationSettings, generate_answers, samples
from tiltlm.model.reference import ReferenceCache, fingerprint, reference_values
from tiltlm.model.scorer import Scorer
from tiltlm.model.weights import load_model
from tiltlm.pipeline.setup import Setup, set_up
from tiltlm.runs.environment import peak_memory_gib
from tiltlm.runs.rows import TrainRow
from tiltlm.training.loop import Trainer
from tiltlm.training.observers import Row
from tiltlm.training.step_plans import Referenced
from tiltlm.training.stop import StopRequest

Variant = Literal["cached", "live"]


@dataclass(frozen=True, slots=True)
class Arguments:
    """How much to measure."""

    pairs: int = 32
    """Pairs of the demo's training data; each has two answers."""
    repeats: int = 5
    """How often each stage is timed, after one round that is not counted."""
    memory_repeats: int = 2
    """Fresh processes for each figure of peak memory."""
    seed: int = 0
    """Decides which pairs are drawn and what is sampled."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Where the figures go. Unset: they are only printed."""
    memory_of: Variant | None = None
    """Only measure the peak memory of this process and print it in GiB; the script starts itself so."""
    cache: Path = Path()
    """For `--memory-of cached`: the folder of a filled reference cache."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the repeats, in the unit of the field."""

    median: float
    smallest: float
    largest: float


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes of tensors, counted from the tensors themselves right after an optimizer step."""

    weights: int
    gradients: int
    optimizer_state: int


@dataclass(frozen=True, slots=True)
class Record:
    """What is written.

    completions, scored_tokens, generated_tokens: in one pass of a stage; prompt tokens are in neither count.
    columns: tokens laid out in a training pass, shared prompts once, padding not counted.
    seconds, ms_per_token: of each stage; per scored token, for sampling per generated one.
    ratios: quotients of stages of the same repeat. `training, live` is reference + training: nothing overlaps.
    peak_gib: largest resident memory of each fresh process.
    """

    arguments: dict[str, int]
    model: str
    completions: int
    scored_tokens: int
    generated_tokens: int
    columns: int
    optimizer_steps: int
    seconds: dict[str, Spread]
    ms_per_token: dict[str, Spread]
    ratios: dict[str, Spread]
    all_seconds: dict[str, list[float]]
    tensor_bytes: Bytes
    peak_gib: dict[str, list[float]]
    circumstances: Circumstances


@dataclass(frozen=True, slots=True)
class Bench:
    """One policy, which is also its own reference at the start, and the pairs of all stages."""

    setup: Setup
    scorer: Scorer
    pairs: TokenColumns
    folder: Path

    @staticmethod
    def of(arguments: Arguments, folder: Path) -> Bench:
        setup = set_up(_config(arguments))
        loaded = load_examples(demo.TRAIN, setup.config.data, HubConfig(), "train")
        drawn = subsample(loaded.examples, arguments.pairs, arguments.seed)
        pairs = TokenColumns.of(setup.tokenizer([loaded.examples[number] for number in drawn]).examples)
        return Bench(setup, Scorer(load_model(setup.source, setup.device)), pairs, folder)

    @property
    def scored_tokens(self) -> int:
        return int(self.pairs.scored_tokens.sum())

    @property
    def sample_length(self) -> int:
        """Tokens of each sampled answer: the mean of the pairs' answers."""
        return round(self.scored_tokens / (2 * len(self.pairs)))

    def sample(self) -> float:
        """Seconds to sample two answers to each prompt."""
        prompts = [pair.chosen.ids[: pair.chosen.first_scored].tolist() for pair in self.pairs]
        settings = GenerationSettings(self.sample_length, self.setup.config.run.seed)
        draws = [samples(2, 1.0)] * len(prompts)
        # Without terminators no answer ends early: every run generates the same number of tokens.
        never: frozenset[int] = frozenset()
        tokenizer, precision = self.setup.tokenizer.tokenizer, self.setup.precision
        start = time.perf_counter()
        answers = generate_answers(self.scorer.model, tokenizer, prompts, draws, settings, never, precision)
        seconds = time.perf_counter() - start
        lengths = {len(answer.ids) for drawn in answers for answer in drawn}
        if lengths != {self.sample_length}:
            raise RuntimeError(f"answers of {self.sample_length} tokens were wanted, not of {lengths}")
        return seconds

    def score_reference(self, scorer: Scorer, folder: Path) -> float:
        """Seconds to score all pairs and keep the values in an empty cache in `folder`."""
        cache = ReferenceCache(folder, "benchmark")
        budget = self.setup.config.training.token_budget
        start = time.perf_counter()
        reference_values(scorer, self.pairs, cache, self.setup.precision, budget)
        seconds = time.perf_counter() - start
        cache.close()
        return seconds

    def look_up(self, folder: Path) -> float:
        """Seconds until the values of an unchanged model are at hand: its fingerprint, then the cache."""
        start = time.perf_counter()
        fingerprint(self.scorer.model)
        self.referenced(folder)
        return time.perf_counter() - start

    def referenced(self, folder: Path) -> Referenced:
        """The pairs with their values from the cache in `folder`."""
        cache = ReferenceCache(folder, "benchmark")
        values, missing = cache.join(self.pairs)
        cache.close()
        if len(missing):
            raise RuntimeError(f"{len(missing)} pairs are not in the cache")
        return Referenced(self.pairs, values)

    def train(self, pairs: Referenced) -> tuple[float, int, int]:
        """One pass: seconds, tokens and number of its optimizer steps, as the training loop itself records them."""
        config, rows = self.setup.config, list[Row]()
        # The loop must have something to evaluate; the time of that is not in the rows of the steps.
        assert pairs.reference is not None
        one = pairs.columns.take([0])
        held_out = Referenced(one, pairs.reference[: one.scored_starts[-1]])
        trainer = Trainer(
            self.scorer, self.setup.objective, config.training, config.run.seed, self.setup.precision, pairs, held_out
        )
        with StopRequest() as stop:
            trainer.train(stop, rows.append)
        steps = [row for row in rows if isinstance(row, TrainRow)]
        return sum(row.seconds for row in steps), sum(row.tokens for row in steps), len(steps)


def _config(arguments: Arguments) -> Config:
    """The demo's settings at learning rate 0: the same arithmetic, and every repeat trains the same model."""
    base = load_config(demo.CONFIG)
    return dataclasses.replace(
        base,
        run=dataclasses.replace(base.run, seed=arguments.seed),
        model=dataclasses.replace(base.model, precision="float32", device="cpu"),
        training=dataclasses.replace(base.training, learning_rate=0.0, eval_every=0),
    )


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.memory_of is not None:
            print(peak_memory_here(arguments, Path(scratch)))
            return
        record = measure(arguments, Path(scratch))
    print(table(record))
    if arguments.output is not None:
        write_record(record, arguments.output)


def measure(arguments: Arguments, scratch: Path) -> Record:
    """Times the stages, then measures memory."""
    around = circumstances("float32")
    bench = Bench.of(arguments, scratch)
    known = scratch / "known"
    bench.score_reference(bench.scorer, known)
    pairs = bench.referenced(known)
    counted: list[Bytes] = []
    handle = register_optimizer_step_post_hook(lambda optimizer, _, __: counted.append(tensor_bytes(optimizer)))
    _, columns, steps = bench.train(pairs)
    handle.remove()

    fresh = (scratch / f"cache{number}" for number in range(1_000_000))
    stages: dict[str, Callable[[], float]] = {
        "sampling": bench.sample,
        "reference": lambda: bench.score_reference(bench.scorer, next(fresh)),
        "training": lambda: bench.train(pairs)[0],
        "lookup": lambda: bench.look_up(known),
    }
    seconds = timed_in_turns(stages, arguments.repeats)
    seconds["training, live"] = [a + b for a, b in zip(seconds["reference"], seconds["training"], strict=True)]
    generated = 2 * len(bench.pairs) * bench.sample_length
    tokens = {name: generated if name == "sampling" else bench.scored_tokens for name in seconds}
    quotients = (
        ("sampling", "reference"),
        ("sampling", "training"),
        ("sampling", "training, live"),
        ("training", "reference"),
        ("training, live", "training"),
        ("lookup", "reference"),
    )
    return Record(
        arguments={"pairs": arguments.pairs, "repeats": arguments.repeats, "seed": arguments.seed},
        model="SmolLM2-135M-Instruct (embedded)",
        completions=2 * len(pairs.columns),
        scored_tokens=bench.scored_tokens,
        generated_tokens=generated,
        columns=columns,
        optimizer_steps=steps,
        seconds={name: _spread(values) for name, values in seconds.items()},
        ms_per_token={name: _spread([1000 * v / tokens[name] for v in values]) for name, values in seconds.items()},
        ratios={
            f"{a} / {b}": _spread([x / y for x, y in zip(seconds[a], seconds[b], strict=True)]) for a, b in quotients
        },
        all_seconds=seconds,
        tensor_bytes=counted[-1],
        peak_gib=memory_in_fresh_processes(arguments, known),
        circumstances=around,
    )


def timed_in_turns(stages: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each stage in each repeat, after one round to warm up; every round begins with another stage."""
    names, seconds = list(stages), {name: list[float]() for name in stages}
    for round_number in range(repeats + 1):
        first = round_number % len(names)
        for name in names[first:] + names[:first]:
            taken = stages[name]()
            if round_number > 0:
                seconds[name].append(taken)
            print(f"round {round_number} of {repeats}: {name} {taken:.2f} s", flush=True)
    return seconds


def tensor_bytes(optimizer: torch.optim.Optimizer) -> Bytes:
    """What the optimizer's parameters, their gradients and its state take up."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = [value for kept in optimizer.state.values() for value in kept.values() if isinstance(value, torch.Tensor)]
    return Bytes(_size(parameters), _size([p.grad for p in parameters if p.grad is not None]), _size(state))


def _size(tensors: Sequence[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def memory_in_fresh_processes(arguments: Arguments, cache: Path) -> dict[str, list[float]]:
    """Peak memory of training passes in processes of their own, one after another."""
    measured: dict[str, list[float]] = {"cached": [], "live": []}
    for _ in range(arguments.memory_repeats):
        for variant, values in measured.items():
            options = {"--pairs": arguments.pairs, "--seed": arguments.seed, "--memory-of": variant, "--cache": cache}
            command = [sys.executable, __file__, *(str(word) for option in options.items() for word in option)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            values.append(float(output.splitlines()[-1]))
            print(f"peak memory, {variant}: {values[-1]:.2f} GiB", flush=True)
    return measured


def peak_memory_here(arguments: Arguments, scratch: Path) -> float:
    """This process's peak memory in GiB after one training pass, with cached values or with a live reference."""
    bench = Bench.of(arguments, scratch)
    folder, reference = arguments.cache, None
    if arguments.memory_of == "live":
        # What a training step with a live reference holds: a second copy of the weights, until training is done.
        reference = Scorer(load_model(bench.setup.source, bench.setup.device))
        folder = scratch / "live"
        bench.score_reference(reference, folder)
    bench.train(bench.referenced(folder))
    peak = peak_memory_gib()
    del reference
    if peak is None:
        raise RuntimeError("this system does not tell a program's peak memory")
    return peak


def table(record: Record) -> str:
    """The figures in words and columns."""
    mib = 2**20
    size = record.tensor_bytes
    total = size.weights + size.gradients + size.optimizer_state
    lines = [
        f"{record.completions} completions, {record.scored_tokens:,} scored tokens, "
        f"{record.generated_tokens:,} generated; {record.columns:,} tokens laid out in a pass; "
        f"{record.optimizer_steps} optimizer steps; median [smallest, largest] of {record.arguments['repeats']}",
        f"{'':28}{'seconds':>26}{'ms per token':>26}",
        *(
            f"{name:28}{_show(spread):>26}{_show(record.ms_per_token[name]):>26}"
            for name, spread in record.seconds.items()
        ),
        *(f"{name:28}{_show(spread):>26}" for name, spread in record.ratios.items()),
        f"tensors: weights {size.weights / mib:.0f} MiB, gradients {size.gradients / mib:.0f} MiB, optimizer state "
        f"{size.optimizer_state / mib:.0f} MiB, together {total / mib:.0f} MiB; a live reference: "
        f"{size.weights / mib:.0f} MiB more",
        *(
            f"peak memory, {variant}: " + ", ".join(f"{peak:.2f} GiB" for peak in runs)
            for variant, runs in record.peak_gib.items()
        ),
    ]
    return "\n".join(lines)


def _show(spread: Spread) -> str:
    return f"{spread.median:.3g} [{spread.smallest:.3g}, {spread.largest:.3g}]"


if __name__ == "__main__":
    main()
