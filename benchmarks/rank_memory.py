"""What each rank of a job holds in memory from stage to stage: whether weights go straight into shares.

    python benchmarks/rank_memory.py --tokenizer MODEL --data pairs.jsonl \
        --output benchmarks/results/rank-memory/NAME.json

A Llama with random weights, saved in bfloat16, is trained by whole runs of `tiltlm train`: on one process, and on
several ranks of one thread each. While a run works, each process is looked at ten times a second: how much memory it
has of its own (what the system calls anonymous: weights, gradients, activations, libraries' data), and how much of what
it has mapped of files is in memory (RssFile), which processes have in common and the system takes back when it wants.
Reported is the most of each in each stage, of the rank with most; and what the plan of a run tells for it, which knows
no checkpoints, so none is taken.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from machine import Circumstances, circumstances, write_record
from tiltlm.cli.command_line import parse_config
from tiltlm.distributed.ranks import Ranks
from tiltlm.model.memory import fake_batch, step_memory
from tiltlm.pipeline.setup import set_up
from tiltlm.pipeline.sizing.run_memory import chosen_way, model_configuration, run_memory

TOKENS = 512
"""Columns of a micro-batch, about half of which are scored."""
STAGES = {
    "1/6": "data",
    "2/6": "reference",
    "3/6": "training",
    "4/6": "evaluation",
    "5/6": "answers",
    "6/6": "report",
}
"""By what begins the line that says that a stage does."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What to measure."""

    tokenizer: str
    data: str
    width: int = 1280
    layers: int = 20
    ranks: tuple[int, ...] = (1, 2)
    pairs: int = 8
    steps: int = 2
    precision: str = "bfloat16"
    output: Path | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """The most bytes that a process of a job had in a stage: of its own, and of files."""

    ranks: int
    stage: str
    own: int
    files: int


@dataclass(frozen=True, slots=True)
class Record:
    """Every stage of every job, and under what circumstances. parameters: of the model. told: bytes of a process at its
    peak by the plan, by how many ranks there are."""

    circumstances: Circumstances
    parameters: int
    held: tuple[Held, ...]
    told: dict[int, int]


def main(arguments: Arguments) -> None:
    before = circumstances(arguments.precision)
    with tempfile.TemporaryDirectory() as scratch:
        parameters = _write_model(arguments, Path(scratch) / "model")
        print(f"{parameters:,} parameters: {4 * parameters / 1e9:.2f} GB in float32", flush=True)
        found = [one for count in arguments.ranks for one in _job(arguments, count, Path(scratch))]
        told = {count: _told(arguments, count, Path(scratch)) for count in arguments.ranks}
    for count, size in told.items():
        print(f"the plan tells {size / 1e9:.2f} GB for {count} ranks")
    print(f"{'ranks':>6} {'stage':>12} {'own, GB':>9} {'files, GB':>10}")
    for one in found:
        print(f"{one.ranks:>6} {one.stage:>12} {one.own / 1e9:>9.2f} {one.files / 1e9:>10.2f}")
    if arguments.output is not None:
        write_record(Record(before, parameters, tuple(found), told), arguments.output)


def _write_model(arguments: Arguments, folder: Path) -> int:
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=arguments.width,
            intermediate_size=arguments.width * 8 // 3 // 64 * 64,
            num_hidden_layers=arguments.layers,
            num_attention_heads=arguments.width // 64,
            num_key_value_heads=arguments.width // 64,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id,
        )
    )
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.num_parameters()


def _job(arguments: Arguments, ranks: int, scratch: Path) -> list[Held]:
    start = [sys.executable, "-m"]
    if ranks > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]
    words = ["tiltlm", "train", f"--model.path={scratch / 'model'}", f"--data.train={Path(arguments.data).resolve()}"]
    words += [f"--data.max-train-pairs={arguments.pairs * arguments.steps}", "--data.max-eval-pairs=8"]
    words += [f"--training.batch-pairs={arguments.pairs}", f"--training.max-steps={arguments.steps}"]
    words += [*_way(arguments), "--comparison.prompts=2", "--comparison.max-new-tokens=8"]
    words += ["--checkpoint.every-minutes=0", f"--run.name={ranks}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TILTLM_CACHE": str(scratch / f"cache-{ranks}")}
    root = str(Path(__file__).parents[1] / "src")
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    job = subprocess.Popen(
        [*start, *words], cwd=scratch, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    stage, most, said = ["start"], dict[str, tuple[int, int]](), list[str]()

    def follow() -> None:
        assert job.stdout is not None
        for line in job.stdout:
            said.append(line)
            stage[0] = STAGES.get(line[:3], stage[0])

    reader = threading.Thread(target=follow)
    reader.start()
    while job.poll() is None:
        for own, files in map(_memory, _processes(job.pid, ranks)):
            before = most.get(stage[0], (0, 0))
            most[stage[0]] = max(before[0], own), max(before[1], files)
        time.sleep(0.1)
    reader.join()
    if job.returncode:
        raise RuntimeError("".join(said)[-3000:])
    return [Held(ranks, name, *own) for name, own in most.items()]


def _way(arguments: Arguments) -> list[str]:
    words = [f"--training.micro-batch-tokens={TOKENS}", "--training.activation-checkpointing"]
    return [*words, f"--model.precision={arguments.precision}"]


def _told(arguments: Arguments, ranks: int, scratch: Path) -> int:
    """Bytes of a process at its peak, as they are known without running."""
    words = [f"--model.path={scratch / 'model'}", "--model.device=cpu", *_way(arguments)]
    setup = set_up(parse_config(words), Ranks(0, ranks, on_machine=ranks))
    batch = fake_batch(TOKENS, 1, TOKENS // 2)
    step = step_memory(model_configuration(setup), chosen_way(setup), batch, setup.device)
    return run_memory(setup, step).most


def _processes(root: int, ranks: int) -> list[int]:
    """The process itself, or those that torchrun has started."""
    if ranks == 1:
        return [root]
    place = Path(f"/proc/{root}/task/{root}/children")
    return [int(number) for number in place.read_text().split()] if place.is_file() else []


def _memory(process: int) -> tuple[int, int]:
    """Bytes of its own, and of files; none of one that is gone."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    except (OSError, ValueError):
        return 0, 0
    own, files = (1024 * int(lines.get(name, "0 kB").split()[0]) for name in ("RssAnon", "RssFile"))
    return own, files


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
