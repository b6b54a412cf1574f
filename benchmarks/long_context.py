"""What a training step on one long pair takes: seconds and memory, as its length doubles.

    python benchmarks/long_context.py --lengths 4096 8192 16384 32768 --output benchmarks/results/long-context/NAME.json

The model has the widths of SmolLM2-135M, few layers and random weights, with full attention (Llama) or a sliding
window (Mistral). The pair is a prompt of so many tokens, less those of two answers of 256. Each length is a process of
its own, and the first of its steps is not counted. Memory is the process's largest resident memory, less what it had
before its steps.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from machine import Circumstances, circumstances, write_record
from tiltlm.cli.command_line import parse_config
from tiltlm.config import HubConfig
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.model.finding import EMBEDDED, find_model
from tiltlm.model.kept_memory import keep_memory
from tiltlm.model.loading import load_tokenizer
from tiltlm.pipeline.models import starting_model
from tiltlm.pipeline.setup import set_up
from tiltlm.runs.environment import peak_memory_gib
from tiltlm.training.loop import Trainer
from tiltlm.training.step_plans import Referenced
from tiltlm.training.stop import StopRequest

Kind = Literal["full", "sliding"]
ANSWER = 256
"""Tokens of each answer."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """How long, with how many layers, and the window of those that slide."""

    lengths: tuple[int, ...] = (4096, 8192, 16384, 32768)
    layers: int = 2
    window: int = 1024
    kinds: tuple[Kind, ...] = ("full", "sliding")
    output: Path | None = None
    measure: Annotated[Kind | None, tyro.conf.arg(help="Used by the script itself: one measurement.")] = None


@dataclass(frozen=True, slots=True)
class Measured:
    """A step on a pair of so many tokens. gib: what the steps took at most; dense_gib: what a mask of so many columns
    by as many, of one byte each, would take alone."""

    kind: Kind
    tokens: int
    seconds: float
    gib: float
    dense_gib: float
    loss: float


@dataclass(frozen=True, slots=True)
class Record:
    """Every length and kind, and under what circumstances."""

    circumstances: Circumstances
    layers: int
    window: int
    measured: tuple[Measured, ...]


def write_model(folder: Path, arguments: Arguments, kind: Kind, length: int) -> None:
    """A model of SmolLM2's widths with random weights."""
    widths: dict[str, Any] = {
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": arguments.layers,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": length,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(0)
    model: LlamaForCausalLM | MistralForCausalLM
    if kind == "full":
        model = LlamaForCausalLM(LlamaConfig(**widths))
    else:
        model = MistralForCausalLM(MistralConfig(**widths, head_dim=64, sliding_window=arguments.window))
    model.save_pretrained(folder)
    load_tokenizer(find_model(EMBEDDED, HubConfig(), False)).save_pretrained(folder)


def pair(length: int) -> TokenColumns:
    """A prompt and two answers, `length` tokens where the prompt is counted once."""
    rng, prompt = np.random.default_rng(0), length - 2 * ANSWER
    ids = rng.integers(100, 49_000, size=length).astype(np.int32)
    chosen, rejected = (
        TokenizedSequence(np.concatenate([ids[:prompt], ids[start : start + ANSWER]]), prompt)
        for start in (prompt, prompt + ANSWER)
    )
    return TokenColumns.of([TokenizedExample.pair("long", chosen, rejected)])


def measured(arguments: Arguments, kind: Kind, length: int) -> Measured:
    """Two steps on the pair, of which the second counts."""
    keep_memory()
    with tempfile.TemporaryDirectory() as name:
        write_model(Path(name), arguments, kind, length)
        setup = set_up(parse_config(["--model.path", name, "--data.train", "none.jsonl"]))
        scorer = starting_model(setup)
        columns = pair(length)
        pairs = Referenced(columns, np.full(int(columns.scored_starts[-1]), -1.0, np.float32))
        trainer = Trainer(scorer, setup.objective, setup.config.training, 0, setup.precision, pairs, pairs)
        before = peak_memory_gib() or 0.0
        with StopRequest() as stop:
            for _ in range(2):
                start = time.perf_counter()
                row = trainer.step(trainer.plan_of(0), stop)
                seconds = time.perf_counter() - start
    taken = round((peak_memory_gib() or 0.0) - before, 3)
    return Measured(kind, length, round(seconds, 2), taken, round(length**2 / 2**30, 3), row.loss)


def main(arguments: Arguments) -> None:
    """Measures each length and kind in a process of its own, and writes or prints the record."""
    if arguments.measure is not None:
        (length,) = arguments.lengths
        found = measured(arguments, arguments.measure, length)
        print(json.dumps({name: getattr(found, name) for name in Measured.__slots__}))
        return
    every = []
    for kind in arguments.kinds:
        for length in arguments.lengths:
            words = ["--lengths", str(length), "--layers", str(arguments.layers), "--window", str(arguments.window)]
            command = [sys.executable, __file__, *words, "--measure", kind]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            every.append(Measured(**json.loads(done.stdout.splitlines()[-1])))
            print(every[-1], flush=True)
    if arguments.output is not None:
        write_record(Record(circumstances("auto"), arguments.layers, arguments.window, tuple(every)), arguments.output)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
