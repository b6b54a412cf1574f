"""What preparing many pairs takes, and what is left of them in memory: made, found again, and as Python objects.

    python benchmarks/token_store.py --output benchmarks/results/token-store/synthetic.json

Each measurement is a process of its own, one at a time, so that its peak memory is its own:

  made      rows in memory are read, tokenized by a small byte-level tokenizer, and kept on disk
  found     the same rows again: read, and their tokens mapped from the disk
  written   columns of many more pairs, made directly, are written
  mapped    these are mapped, checked, a tenth of them is taken in random order, and what their prompts share is counted
  objects   as many pairs as are tokenized, as Python objects with arrays of their own

Memory is resident memory, of which mapped pages that were read are a part: the system takes them back when it needs
room.
"""

from __future__ import annotations

import ctypes
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from machine import Circumstances, circumstances, write_record
from tiltlm.config import Config, DataConfig
from tiltlm.data.preparation import prepare_data, read_data
from tiltlm.data.tokens.sharing import tokens_laid_out
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence, bounds_of
from tiltlm.data.tokens.token_store import checksum, map_columns, write_columns
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.runs.environment import peak_memory_gib

What = Literal["made", "found", "written", "mapped", "objects"]
PROMPT_WORDS, ANSWER_WORDS = 40, 20
"""Words of each prompt and answer of the rows."""
PROMPT_TOKENS, ANSWER_TOKENS = 40, 20
"""Mean tokens of the columns that are made directly; their lengths are uniform between nothing and twice that."""
_WORDS = [f"{start}{end}" for start in "bdfgklmnprstvwz" for end in ("a", "e", "i", "o", "u", "an", "en", "in")]


@dataclass(frozen=True, slots=True)
class Arguments:
    """How much to measure."""

    output: Path | None = None
    """Where the record goes, as JSON. Unset: it is printed."""
    pairs: int = 100_000
    """Pairs that are read and tokenized."""
    column_pairs: int = 1_000_000
    """Pairs of the columns that are made directly."""
    measure: Annotated[What | None, tyro.conf.arg(help="Used by the script itself: one measurement.")] = None
    folder: Annotated[Path | None, tyro.conf.arg(help="Used by the script itself: where files are kept.")] = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement. seconds: by step. peak_gib: largest resident memory; before_gib: before the first step.

    left_gib: resident memory when only what was prepared is left, the libraries that were loaded on the way included;
        None where that was not looked at.
    """

    what: str
    pairs: int
    tokens: int
    seconds: dict[str, float]
    before_gib: float
    peak_gib: float
    left_gib: float | None


@dataclass(frozen=True, slots=True)
class Record:
    """All measurements, in the order in which they were taken."""

    circumstances: Circumstances
    measurements: tuple[Measured, ...]


class Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def step(self, name: str) -> None:
        """The time since the last step."""
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now


def rows(pairs: int) -> Iterator[dict[str, str]]:
    """Synthetic pairs, the same at every call."""
    rng = np.random.default_rng(0)
    for _ in range(pairs):
        drawn = rng.integers(len(_WORDS), size=PROMPT_WORDS + 2 * ANSWER_WORDS)
        words = [_WORDS[number] for number in drawn]
        prompt, chosen, rejected = np.split(np.array(words), [PROMPT_WORDS, PROMPT_WORDS + ANSWER_WORDS])
        yield {"prompt": f"{' '.join(prompt)}:", "chosen": f" {' '.join(chosen)}", "rejected": f" {' '.join(rejected)}"}


def small_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE that knows the words of the rows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([f" {word}" for word in _WORDS] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def columns(pairs: int) -> TokenColumns:
    """Random pairs in columns: both sequences of each begin with one prompt."""
    rng = np.random.default_rng(0)
    prompts = np.repeat(rng.integers(1, 2 * PROMPT_TOKENS, pairs), 2)
    lengths = prompts + rng.integers(1, 2 * ANSWER_TOKENS, 2 * pairs)
    bounds = bounds_of(lengths)
    ids = rng.integers(0, 50_000, bounds[-1], dtype=np.int32)
    for first in range(0, pairs, 100_000):
        numbers = np.arange(first, min(first + 100_000, pairs))
        counts = prompts[2 * numbers]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        chosen, rejected = (np.repeat(bounds[2 * numbers + side], counts) + within for side in (0, 1))
        ids[rejected] = ids[chosen]
    return TokenColumns(
        ids=ids,
        bounds=bounds,
        first_scored=prompts.astype(np.int32),
        tokens_cut=np.zeros(2 * pairs, dtype=np.int32),
        ended=np.ones(2 * pairs, dtype=np.int8),
        scores=np.full(2 * pairs, np.nan, dtype=np.float32),
        labels=np.tile(np.array([1, 0], dtype=np.int8), pairs),
        members=np.arange(0, 2 * pairs + 1, 2),
        prompt_tokens_cut=np.zeros(pairs, dtype=np.int32),
        names=[f"pairs.jsonl:{number}" for number in range(1, pairs + 1)],
    )


def prepare(what: What, pairs: int, folder: Path) -> Measured:
    """Rows to tokens, made or found."""
    config = Config(data=DataConfig(max_length=512))
    given, tokenizer = list(rows(pairs)), ExampleTokenizer(small_tokenizer(), config.data)
    before, clock = settled_gib(), Clock()
    read = read_data(config, train=given)
    clock.step("read")
    data = prepare_data(read, tokenizer, lambda done: None, folder)
    clock.step("prepare")
    del read, given
    tokens = len(data.train.ids) + len(data.eval.ids)
    return Measured(what, len(data.train) + len(data.eval), tokens, clock.seconds, before, peak_gib(), settled_gib())


def write(pairs: int, folder: Path) -> Measured:
    """Columns to a file."""
    made = columns(pairs)
    before, clock = settled_gib(), Clock()
    write_columns(made, folder / "columns.arrow")
    clock.step("write")
    return Measured("written", len(made), len(made.ids), clock.seconds, before, peak_gib(), None)


def use(folder: Path) -> Measured:
    """Columns from a file."""
    path = folder / "columns.arrow"
    before, clock = settled_gib(), Clock()
    mapped = map_columns(path)
    clock.step("map")
    left = settled_gib()
    checksum(path)
    clock.step("check")
    order = np.random.default_rng(0).permutation(len(mapped))[: len(mapped) // 10]
    taken = mapped.take(order)
    clock.step("take a tenth")
    tokens_laid_out(mapped)
    clock.step("count what is shared")
    for number in order[:1000].tolist():
        assert taken.names[0] and mapped[number].id
    clock.step("look at 1000 one by one")
    return Measured("mapped", len(mapped), len(mapped.ids), clock.seconds, before, peak_gib(), left)


def as_objects(pairs: int) -> Measured:
    """The same sizes, as Python objects."""
    made = columns(pairs)
    before, clock = settled_gib(), Clock()
    objects = [
        TokenizedExample(
            one.id,
            tuple(TokenizedSequence(s.ids.copy(), s.first_scored, s.tokens_cut) for s in one.sequences),
            one.labels,
        )
        for one in made
    ]
    clock.step("make")
    return Measured("objects", len(objects), len(made.ids), clock.seconds, before, peak_gib(), settled_gib())


def peak_gib() -> float:
    """The largest resident memory of this process so far."""
    return round(peak_memory_gib() or 0.0, 3)


def settled_gib() -> float:
    """The resident memory of this process, once the system has been given back what was freed."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * resource.getpagesize() / 2**30, 3)


def measure(arguments: Arguments, what: What, folder: Path) -> Measured:
    """One measurement, in this process."""
    if what in ("made", "found"):
        return prepare(what, arguments.pairs, folder)
    if what == "written":
        return write(arguments.column_pairs, folder)
    return use(folder) if what == "mapped" else as_objects(arguments.pairs)


def measured_apart(arguments: Arguments, what: What, folder: Path) -> Measured:
    """One measurement, in a process of its own."""
    options = {"--pairs": arguments.pairs, "--column-pairs": arguments.column_pairs, "--measure": what}
    words = [str(word) for item in (options | {"--folder": folder}).items() for word in item]
    done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def main(arguments: Arguments) -> None:
    """Measures, and writes or prints the record."""
    if arguments.measure is not None and arguments.folder is not None:
        found = measure(arguments, arguments.measure, arguments.folder)
        print(json.dumps({name: getattr(found, name) for name in Measured.__slots__}))
        return
    before = circumstances("none: no model runs")
    with tempfile.TemporaryDirectory() as folder:
        measurements = []
        for what in ("made", "found", "written", "mapped", "objects"):
            measurements.append(measured_apart(arguments, what, Path(folder)))
            print(measurements[-1], flush=True)
    if arguments.output is not None:
        write_record(Record(before, tuple(measurements)), arguments.output)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
