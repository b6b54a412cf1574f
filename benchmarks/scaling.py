"""What data of growing size take before the first step: seconds by stage for each 1,000 pairs, and memory.

    python benchmarks/scaling.py --sizes 1000 10000 100000 --output benchmarks/results/scaling/data.json

For each size a file of synthetic pairs is written: words of the demo's texts, prompts and answers of log-normal lengths
as in conversations (medians of 60 and 40 words), every fourth prompt asked twice. Two processes of its own follow, so
that a peak of memory is that of its size:

  cold   read (the file to examples), tokenize, inspect (what the data look like, the account, the tokens to the disk),
         order (one pass of training in steps), plan (steps of 32 pairs laid out), put and join (reference values of all
         pairs, made up, into the cache and out of it)
  warm   read, and find again (the tokens by content)

Stages that a size is too large for are left out by name: --without plan join.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from machine import Circumstances, circumstances, write_record
from tiltlm import demo
from tiltlm.config import Config, DataConfig, HubConfig
from tiltlm.data.examples import Example
from tiltlm.data.preparation import prepare_data, read_data
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.data.tokens.token_parts import Tokenized, TokenParts
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.model.finding import EMBEDDED, find_model
from tiltlm.model.loading import load_tokenizer
from tiltlm.model.reference import ReferenceCache
from tiltlm.plan.packing import plan
from tiltlm.plan.row_layout import BLOCKS
from tiltlm.plan.steps import Order
from tiltlm.runs.environment import peak_memory_gib

What = Literal["cold", "warm"]
Stage = Literal["plan", "join"]
PROMPT_WORDS, ANSWER_WORDS, SPREAD = 60, 40, 0.8
"""Medians of the words of prompts and answers, and the deviation of their logarithm."""
BATCH = 32
PLANNED_STEPS = 60
"""Steps that are planned at most; their time is counted by the pair."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """How much to measure."""

    output: Path | None = None
    """Where the record goes, as JSON. Unset: it is printed."""
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Pairs, one measurement after another."""
    without: tuple[Stage, ...] = ()
    """Stages that are left out."""
    measure: Annotated[What | None, tyro.conf.arg(help="Used by the script itself: one measurement.")] = None
    folder: Annotated[Path | None, tyro.conf.arg(help="Used by the script itself: where files are kept.")] = None


@dataclass(frozen=True, slots=True)
class Stages:
    """One process. tokens: of all sequences. By stage: seconds, processor_seconds (of all threads), peak_gib, own_gib.

    peak_gib: the largest resident memory so far, pages of files that are mapped among it, which the system takes back
    when it needs them. own_gib: the largest of the process's own in the stage, which it cannot take back.
    """

    what: str
    pairs: int
    tokens: int
    seconds: dict[str, float]
    processor_seconds: dict[str, float]
    peak_gib: dict[str, float]
    own_gib: dict[str, float]
    before_gib: float

    def by_thousand(self) -> dict[str, float]:
        """Seconds of the processor for 1,000 pairs, which other work on the machine changes least."""
        return {stage: round(1000 * seconds / self.pairs, 5) for stage, seconds in self.processor_seconds.items()}


@dataclass(frozen=True, slots=True)
class Record:
    """All processes in their order, and their seconds for 1,000 pairs."""

    circumstances: Circumstances
    measurements: tuple[Stages, ...]
    seconds_by_thousand: tuple[dict[str, float], ...]


@dataclass(slots=True)
class Clock:
    """Seconds and memory by stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    processor_seconds: dict[str, float] = field(default_factory=dict)
    peak_gib: dict[str, float] = field(default_factory=dict)
    own_gib: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, share: float = 1.0) -> Iterator[None]:
        """Times what is done within, as if all pairs had been worked on and not their share; adds up."""
        start = (time.perf_counter(), time.process_time())
        with OwnMemory() as own:
            yield
        self.own_gib[name] = max(own.most, self.own_gib.get(name, 0.0))
        taken = (time.perf_counter() - start[0], time.process_time() - start[1])
        for seconds, some in zip((self.seconds, self.processor_seconds), taken, strict=True):
            seconds[name] = round(seconds.get(name, 0.0) + some / share, 4)
        self.peak_gib[name] = round(peak_memory_gib() or 0.0, 3)

    def apart(self, inner: str, outer: str) -> None:
        """Takes a stage out of the one within which it was."""
        for seconds in (self.seconds, self.processor_seconds):
            seconds[outer] = round(seconds[outer] - seconds[inner], 4)


class OwnMemory:
    """Looks again and again, within it, how much memory the process has of its own. most: GiB."""

    def __init__(self) -> None:
        self.most = 0.0
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> OwnMemory:
        self._looking.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._looking.join()

    def _look(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text(encoding="ascii")
            kilobytes = int(status.split("RssAnon:")[1].split()[0])
            self.most = max(self.most, round(kilobytes / 2**20, 3))
            if self._ended.wait(0.05):
                return


class TimedTokenizer(ExampleTokenizer):
    """Times tokenizing apart from what surrounds it."""

    clock: Clock

    def tokenize(
        self,
        examples: Sequence[Example],
        numbers: np.ndarray,
        advance: Callable[[int], None],
        kept: TokenParts | None = None,
    ) -> list[Tokenized]:
        """As ever, timed."""
        with self.clock.stage("tokenize"):
            return super().tokenize(examples, numbers, advance, kept)


def pairs(number: int) -> Iterator[dict[str, str]]:
    """Synthetic pairs, the same at every call."""
    rng = np.random.default_rng(0)
    words = np.array(demo_words())
    prompt = ""
    for place in range(number):
        lengths = np.exp(rng.normal(0, SPREAD, 3)) * (PROMPT_WORDS, ANSWER_WORDS, ANSWER_WORDS)
        counts = np.clip(lengths, 2, 400).astype(int)
        texts = [" ".join(words[rng.integers(len(words), size=count)]) for count in counts]
        prompt = prompt if place % 4 == 3 else f"\n\nHuman: {texts[0]}?\n\nAssistant:"
        yield {"prompt": prompt, "chosen": f" {texts[1]}.", "rejected": f" {texts[2]}."}


def demo_words() -> list[str]:
    """The words of the demo's texts, as often as they stand there."""
    with Path(demo.TRAIN).open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, 500)]
    return [word for row in rows for text in _texts(row) for word in text.split()]


def _texts(value: object) -> Iterator[str]:
    """All text within a row's lists and objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def cold(number: int, folder: Path, without: Sequence[Stage]) -> Stages:
    """From the file to plans and reference values, nothing being cached."""
    config, tokenizer = settings(folder), embedded_tokenizer()
    before, clock = resident_gib(), Clock()
    tokenizer.clock = clock
    with clock.stage("read"):
        read = read_data(config)
    with clock.stage("inspect"):
        data = prepare_data(read, tokenizer, lambda done: None, folder / "tokens")
    clock.apart("tokenize", "inspect")
    columns, tokens = data.train, len(data.train.ids) + len(data.eval.ids)
    del read, data
    order = Order(len(columns), BATCH, seed=0)
    with clock.stage("order", len(columns) / number):
        for step in range(order.steps_per_epoch):
            order.step(step)
    values = np.zeros(int(columns.scored_starts[-1]), dtype=np.float32)
    if "plan" not in without:
        steps = min(PLANNED_STEPS, order.steps_per_epoch)
        with clock.stage("plan", min(steps * BATCH, len(columns)) / number):
            for step in range(steps):
                plan(columns, order.step(step), config.training.token_budget, BLOCKS, values)
    if "join" not in without:
        joined(columns, values, folder, clock, len(columns) / number)
    return Stages("cold", number, tokens, clock.seconds, clock.processor_seconds, clock.peak_gib, clock.own_gib, before)


def joined(columns: TokenColumns, values: np.ndarray, folder: Path, clock: Clock, share: float) -> None:
    """Values of all sequences into the cache, as many at once as a pass keeps, and out of it."""
    cache = ReferenceCache(folder / "reference", "made-up")
    with clock.stage("put", share):
        for first in range(0, columns.sequences, 128):
            cache.put(columns, range(first, min(first + 128, columns.sequences)), values)
    with clock.stage("join", share):
        _, missing = cache.join(columns)
    cache.close()
    assert not len(missing)


def warm(number: int, folder: Path) -> Stages:
    """The same data, found again."""
    config, tokenizer = settings(folder), embedded_tokenizer()
    before, clock = resident_gib(), Clock()
    tokenizer.clock = clock
    with clock.stage("read"):
        read = read_data(config)
    with clock.stage("find again"):
        data = prepare_data(read, tokenizer, lambda done: None, folder / "tokens")
    assert "tokenize" not in clock.seconds
    tokens = len(data.train.ids) + len(data.eval.ids)
    return Stages("warm", number, tokens, clock.seconds, clock.processor_seconds, clock.peak_gib, clock.own_gib, before)


def settings(folder: Path) -> Config:
    """Those of a run on the file."""
    return Config(data=DataConfig(train=str(folder / "pairs.jsonl"), eval=None, max_length=512))


def embedded_tokenizer() -> TimedTokenizer:
    """The embedded model's tokenizer."""
    tokenizer = load_tokenizer(find_model(EMBEDDED, HubConfig(), False))
    return TimedTokenizer(tokenizer, DataConfig(max_length=512))


def resident_gib() -> float:
    """The resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * resource.getpagesize() / 2**30, 3)


def measured_apart(number: int, what: What, folder: Path, without: Sequence[Stage]) -> Stages:
    """One measurement, in a process of its own."""
    words = ["--sizes", str(number), "--measure", what, "--folder", str(folder)]
    words += ["--without", *without] if without else []
    done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True)
    return Stages(**json.loads(done.stdout.splitlines()[-1]))


def main(arguments: Arguments) -> None:
    """Measures, and writes or prints the record."""
    if arguments.measure is not None and arguments.folder is not None:
        (number,) = arguments.sizes
        cold_one = arguments.measure == "cold"
        found = cold(number, arguments.folder, arguments.without) if cold_one else warm(number, arguments.folder)
        print(json.dumps({name: getattr(found, name) for name in Stages.__slots__}))
        return
    before = circumstances("none: no model runs")
    measurements = []
    for number in arguments.sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(pair) + "\n" for pair in pairs(number))
            for what in ("cold", "warm"):
                measurements.append(measured_apart(number, what, folder, arguments.without))
                print(number, what, measurements[-1].by_thousand(), measurements[-1].own_gib, flush=True)
        if arguments.output is not None:  # after each size, as the next takes ten times as long
            record = Record(before, tuple(measurements), tuple(one.by_thousand() for one in measurements))
            write_record(record, arguments.output)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
