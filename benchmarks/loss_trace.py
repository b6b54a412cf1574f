"""The loss trace of fixed runs, to the last bit: what a change of the code's shape must leave as it was.

Trains, in float32 on the CPU and on the demo's data, the embedded model for 3 steps and tiny random models of GPT-2,
Llama and Gemma 3 for 6, and prints every row's figures with one digest a model. Run it before a change and after it, on
one machine with the same versions, and compare:

    python benchmarks/loss_trace.py --output before.json
    python benchmarks/loss_trace.py --compare before.json
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from transformers import (
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from tiltlm.config import ComparisonConfig, Config, DataConfig, LossConfig, ModelConfig, RunConfig, TrainingConfig
from tiltlm.model.embedded import embedded_model
from tiltlm.pipeline.reporter import LogReporter
from tiltlm.pipeline.run import train
from tiltlm.runs.rows import EvalRow, TrainRow
from tiltlm.runs.run_files import read_run

Trace = list[dict[str, float | str | None]]
"""One row of figures after another, floats as they are."""

LEFT_OUT = frozenset({"seconds", "tokens", "examples"})
"""What may differ from machine to machine, or says how a step was laid out and not what it computed."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """Where to keep the traces, or what to compare them with."""

    output: Path | None = None
    """Write the traces to this file."""
    compare: Path | None = None
    """Compare with the traces in this file; the exit code is 1 where one differs."""
    objective: str = "sigmoid"
    """The objective to train with (--loss.name)."""


def tiny_models(folder: Path) -> Iterator[tuple[str, Path]]:
    """Random models of a few hundred thousand weights, with the embedded model's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    common: dict[str, Any] = {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    gpt2 = GPT2Config(n_layer=2, n_embd=32, n_head=2, n_positions=1024, **common)
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 1024}
    llama = LlamaConfig(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, **shape, **common)
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    gemma = Gemma3TextConfig(num_hidden_layers=4, sliding_window=64, **heads, **shape, **common)
    torch.manual_seed(0)
    built: tuple[tuple[str, PreTrainedModel], ...] = (
        ("gpt2", GPT2LMHeadModel(gpt2)),
        ("llama", LlamaForCausalLM(llama)),
        ("gemma3", Gemma3ForCausalLM(gemma)),
    )
    for name, model in built:
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        yield name, folder / name


def trace(name: str, model: str, objective: str, folder: Path) -> Trace:
    """The rows of one run."""
    tiny = model != "embedded"
    config = Config(
        run=RunConfig(name=name, directory=str(folder / "runs")),
        model=ModelConfig(path=model, precision="float32", device="cpu"),
        data=DataConfig(train="demo"),
        loss=LossConfig(name=objective),
        training=TrainingConfig(
            max_steps=6 if tiny else 3,
            eval_every=2,
            batch_pairs=12,
            micro_batch_tokens=1024,
            learning_rate=1e-3 if tiny else 1e-6,
        ),
        comparison=ComparisonConfig(prompts=0),
    )
    # The result lies in files; what is said on the way is for people.
    with contextlib.redirect_stdout(sys.stderr):
        run = train(config, ("python", *sys.argv), LogReporter())
    metrics = read_run(run.folder).metrics
    rows: list[TrainRow | EvalRow] = sorted((*metrics.train, *metrics.evaluations), key=lambda row: row.step)
    return [
        {"row": type(row).__name__, **{k: v for k, v in dataclasses.asdict(row).items() if k not in LEFT_OUT}}
        for row in rows
    ]


def digest(rows: Trace) -> str:
    """SHA-256 of a trace; floats are written so that they can be read back exactly."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    traces: dict[str, Trace] = {}
    with tempfile.TemporaryDirectory() as scratch:
        # Cached values would hide a change of the reference pass.
        os.environ["TILTLM_CACHE"] = str(Path(scratch) / "cache")
        models = [("embedded", "embedded"), *((name, str(path)) for name, path in tiny_models(Path(scratch)))]
        for name, model in models:
            traces[name] = trace(name, model, arguments.objective, Path(scratch))
            losses = [f"{row['loss']:.9f}" for row in traces[name] if row["row"] == "TrainRow"]
            print(f"{name:10} {digest(traces[name])}  losses {' '.join(losses)}", flush=True)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(traces, indent=1) + "\n", encoding="utf-8")
    return compared(traces, json.loads(arguments.compare.read_text())) if arguments.compare is not None else 0


def compared(new: dict[str, Trace], old: dict[str, Trace]) -> int:
    """Says of each model whether its trace is the same to the last bit, and if not where it first differs."""
    code = 0
    for name, rows in new.items():
        before = json.loads(json.dumps(rows))
        differing = [
            f"{a['row']} {a.get('step')} {key}: {b.get(key)} before, {a[key]} now"
            for a, b in zip(before, old.get(name, []), strict=False)
            for key in a
            if a[key] != b.get(key)
        ]
        same = not differing and len(before) == len(old.get(name, []))
        code |= not same
        print(f"{name:10} {'the same to the last bit' if same else f'differs: {differing[:1] or len(before)}'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
