"""How fast and how large DPO steps are on one GPU, against TRL with and without Liger's kernels: one call, 10 minutes.

python benchmarks/gpu_speed.py --out FILE.json
python benchmarks/gpu_speed.py --small --out FILE.json      # tiny models, on the CPU too, in under a minute

Models have random weights: a Llama of about 1B parameters, and GPT-2 at 124M. Pairs have the token lengths of 500 of HH
(harmless-base, cut at 512) and of UltraFeedback (cut at 1,024), counted with SmolLM2's tokenizer (pair_lengths.json);
their tokens are random. Ours has its reference cached, and TRL its own precomputed. Sections come most important first,
the file is written after each, and no section begins after --seconds, so that a call cut short leaves what it has. What
is not installed or fails is named in the file. Nothing is downloaded.

Useful arithmetic counts each shared token once and the output layer on scored tokens alone, three units for training.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedConfig, PreTrainedModel

from machine import circumstances
from tiltlm.config import TrainingConfig
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.model import varlen_attention
from tiltlm.model.compiled_layers import compile_layers
from tiltlm.model.scorer import Scorer
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import CHOSEN, REJECTED
from tiltlm.training.bound_objective import BoundObjective
from tiltlm.training.loop import Trainer
from tiltlm.training.step_plans import Referenced
from tiltlm.training.stop import StopRequest

LENGTHS = Path(__file__).with_name("pair_lengths.json")
MAX_LENGTH = {"hh": 512, "ultrafeedback": 1024}
SMALL_DIVISOR = 16
"""By how much lengths are divided for tiny models."""
MOST_PAIRS = 512
"""No larger batch is tried."""

Pair = tuple[list[int], list[int], list[int]]
"""Tokens of prompt, chosen and rejected."""


@dataclass(frozen=True, slots=True)
class Way:
    """How steps are taken. attention, compiled: of ours; liger: of TRL's."""

    system: str
    attention: str = "varlen"
    compiled: bool = False
    liger: bool = False


WAYS = {
    "ours, varlen": Way("tiltlm"),
    "TRL with Liger": Way("trl", liger=True),
    "TRL": Way("trl"),
    "ours, dense": Way("tiltlm", attention="dense"),
    "ours, varlen, compiled": Way("tiltlm", compiled=True),
}


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how large.

    until: no section begins after it, by `time.perf_counter`. tokens: most columns in one of our forward passes.
    """

    device: torch.device
    small: bool
    steps: int
    tokens: int
    until: float
    scratch: Path

    def config(self, model: str) -> PreTrainedConfig:
        ids: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        if model == "gpt2":
            own: dict[str, Any] = {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 128} if self.small else {}
            off: dict[str, Any] = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
            return GPT2Config(**{"n_positions": 1024, **ids, **off, **own})
        sizes: dict[str, Any] = {
            "vocab_size": 128 if self.small else 49_152,
            "hidden_size": 32 if self.small else 2048,
            "intermediate_size": 64 if self.small else 8192,
            "num_hidden_layers": 2 if self.small else 16,
            "num_attention_heads": 4 if self.small else 32,
            "num_key_value_heads": 2 if self.small else 8,
            "max_position_embeddings": 2048,
        }
        return LlamaConfig(**sizes, tie_word_embeddings=True, **ids)

    def model(self, name: str) -> PreTrainedModel:
        torch.manual_seed(0)
        with torch.device(self.device):
            made: PreTrainedModel = AutoModelForCausalLM.from_config(self.config(name), dtype=torch.float32)
        made.eval()
        return made

    def pairs(self, data: str, vocabulary: int, count: int) -> list[Pair]:
        """Pairs of random tokens with these lengths; the longest prompts are cut, and longer answers left out."""
        divisor, most = (SMALL_DIVISOR, MAX_LENGTH[data] // SMALL_DIVISOR) if self.small else (1, MAX_LENGTH[data])
        rng, made = np.random.default_rng(0), list[Pair]()
        lengths = [[-(-one // divisor) for one in three] for three in json.loads(LENGTHS.read_text())[data]]
        fitting = [three for three in lengths if max(three[1:]) <= most // 2]
        for number in range(count):
            prompt, *answers = fitting[number % len(fitting)]
            before = min(prompt, most - max(answers))
            drawn = [rng.integers(3, vocabulary, length).tolist() for length in (before, *answers)]
            made.append((drawn[0], drawn[1], drawn[2]))
        return made


def columns_of(pairs: list[Pair]) -> TokenColumns:
    examples = []
    for number, (prompt, *answers) in enumerate(pairs):
        sequences = [TokenizedSequence(np.array([*prompt, *own], dtype=np.int32), len(prompt)) for own in answers]
        examples.append(TokenizedExample(f"pair {number}", tuple(sequences), (CHOSEN, REJECTED)))
    return TokenColumns.of(examples)


def matrix_peak(device: torch.device, small: bool) -> float:
    """The most bfloat16 operations a second that a product of large matrices was seen to do."""
    size, best = 256 if small else 8192, 0.0
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(10):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(10):
            a @ b
        synchronize(device)
        best = max(best, 10 * 2 * size**3 / (time.perf_counter() - start))
    return best


def useful_operations(model: PreTrainedModel, pairs: list[Pair]) -> float:
    """Of training steps on these pairs: matrix products of layers on every token, of the head on scored ones, and
    attention of each token over what it sees."""
    config = model.config.get_text_config()
    layer: Any = model.get_output_embeddings()
    head = layer.weight.numel()
    tables = {id(own.weight) for own in model.modules() if isinstance(own, torch.nn.Embedding)}
    inner = sum(p.numel() for p in model.parameters() if p.dim() == 2 and id(p) not in tables and p.numel() != head)
    total = 0.0
    for prompt, *answers in pairs:
        own = [len(answer) - 1 for answer in answers]
        seen = len(prompt) ** 2 / 2 + sum(len(prompt) * n + n**2 / 2 for n in own)
        attention = 4 * config.num_hidden_layers * config.hidden_size * seen
        total += 2 * inner * (len(prompt) + sum(own)) + 2 * head * sum(map(len, answers)) + attention
    return 3 * total


@contextmanager
def attending(attention: str) -> Iterator[None]:
    """Within, ours attends over runs where the kernel serves, or under a dense mask."""
    with ExitStack() as held:
        if attention == "dense":
            held.enter_context(patch.object(varlen_attention, "why_no_varlen", lambda *given: "dense is measured"))
        yield


def ours(bench: Bench, way: Way, model: PreTrainedModel, pairs: list[Pair], batch: int) -> list[float]:
    """Seconds of each step."""
    columns = columns_of(pairs)
    values = np.full(int(columns.scored_starts[-1]), -5.0, dtype=np.float32)
    one = Referenced(columns.take([0]), values[: columns.take([0]).scored_starts[-1]])
    if way.compiled:
        compile_layers(model)
    training = TrainingConfig(batch_pairs=batch, micro_batch_tokens=bench.tokens, max_steps=len(pairs) // batch)
    objective = BoundObjective(OBJECTIVES["sigmoid"], OBJECTIVES["sigmoid"].settings())
    with attending(way.attention), StopRequest() as stop:
        trainer = Trainer(Scorer(model), objective, training, 0, torch.bfloat16, Referenced(columns, values), one)
        rows: list[Any] = []
        trainer.train(stop, rows.append)
    return [row.seconds for row in rows if hasattr(row, "gradient_norm")]


def trls(bench: Bench, way: Way, model: PreTrainedModel, pairs: list[Pair], batch: int) -> list[float]:
    """Seconds of each step of TRL's trainer, without its first data loading."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    vocabulary = model.config.vocab_size
    words = Tokenizer(models.WordLevel({f"t{n}": n for n in range(vocabulary)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="t0", bos_token="t1", eos_token="t2")

    def text(ids: list[int]) -> str:
        return "".join(f" t{n}" for n in ids)

    rows = [{"prompt": text(p), "chosen": text(c[:-1]), "rejected": text(r[:-1])} for p, c, r in pairs]
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not ends:
                synchronize(bench.device)
                if bench.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()  # the reference's pass is no part of a step
                ends.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            synchronize(bench.device)
            ends.append(time.perf_counter())

    config = DPOConfig(
        output_dir=str(bench.scratch / "trl"),
        per_device_train_batch_size=batch,
        max_steps=len(pairs) // batch,
        bf16=True,
        use_cpu=bench.device.type == "cpu",
        gradient_checkpointing=False,
        max_length=1024,
        precompute_ref_log_probs=True,
        use_liger_kernel=way.liger,
        train_sampling_strategy="sequential",
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    trainer = DPOTrainer(
        model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[Clock()]
    )
    trainer.train()
    return [end - start for start, end in itertools.pairwise(ends)]


SYSTEMS: dict[str, Callable[[Bench, Way, PreTrainedModel, list[Pair], int], list[float]]] = {
    "tiltlm": ours,
    "trl": trls,
}


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_gib(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def emptied(device: torch.device) -> None:
    """Gives back what the section before left, and has compiled regions forgotten."""
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def timed(bench: Bench, way: Way, name: str, data: str, batch: int, peak: float) -> dict[str, Any]:
    """Pairs a second, share of the peak and memory of one way, model and data; the first steps warm up."""
    emptied(bench.device)
    model = bench.model(name)
    pairs = bench.pairs(data, model.config.vocab_size, batch * bench.steps)
    served = varlen_attention.why_no_varlen(model, bench.device, torch.bfloat16)
    work = useful_operations(model, pairs) / bench.steps
    seconds = SYSTEMS[way.system](bench, way, model, pairs, batch)
    step = statistics.median(seconds[len(seconds) // 3 :])
    return {
        "pairs_per_second": batch / step,
        "share_of_peak": work / step / peak,
        "step_seconds": seconds,
        "peak_memory_gib": peak_gib(bench.device),
        "dense_because": served if way.system == "tiltlm" and way.attention == "varlen" else None,
    }


def largest_batch(bench: Bench, way: Way, name: str, data: str) -> dict[str, Any]:
    """The most pairs that fit in one pass, by doubling, then halving the rest: two steps each."""
    tried: dict[int, bool] = {}

    def fits(batch: int) -> bool:
        if batch not in tried:
            emptied(bench.device)
            # All in one forward pass, as a peer's batch is.
            one_pass = replace(bench, tokens=1 << 30)
            try:
                model = bench.model(name)
                pairs = bench.pairs(data, model.config.vocab_size, 2 * batch)
                SYSTEMS[way.system](one_pass, way, model, pairs, batch)
                tried[batch] = True
            except torch.OutOfMemoryError:
                tried[batch] = False
        return tried[batch]

    most = 4 if bench.small else MOST_PAIRS
    low, high = 0, 1
    while high <= most and time.perf_counter() < bench.until and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > max(1, low // 8) and time.perf_counter() < bench.until:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return {"pairs": low, "does_not_fit": min((n for n, fit in tried.items() if not fit), default=None)}


def sections(bench: Bench, peak: float) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """What is measured, most important first."""
    batch = 4 if bench.small else 16
    first, rest = list(WAYS)[:3], list(WAYS)[3:]
    if bench.device.type == "cpu":
        rest = [way for way in rest if not WAYS[way].compiled]  # compiling takes longer there than all the rest
    cases = [("llama-1b", "hh", first), ("llama-1b", "hh", rest), ("gpt2", "hh", first)]
    cases += [("llama-1b", "ultrafeedback", first), ("gpt2", "hh", rest), ("gpt2", "ultrafeedback", first)]
    for number, (name, data, ways) in enumerate(cases):
        for way in ways:
            yield f"speed: {name}, {data}, {way}", partial(timed, bench, WAYS[way], name, data, batch, peak)
        if number == 0:
            for way in first:
                yield f"largest batch: {name}, {data}, {way}", partial(largest_batch, bench, WAYS[way], name, data)


def measured(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A section's figures, or why there are none."""
    start = time.perf_counter()
    try:
        found = measure()
    except Exception as error:  # what was measured before, and what comes after, is not lost for that
        found = {"failed": f"{type(error).__name__}: {error}"[:500]}
    return {**found, "section_seconds": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny models, to try the script")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=520.0, help="no section begins after this long")
    parser.add_argument("--steps", type=int, default=None, help="of each timing; a third of them warms up")
    parser.add_argument("--only", default="", help="sections whose name has this word")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    device, small = torch.device(arguments.device), arguments.small
    if device.type == "cpu" and not small:
        raise SystemExit("without a GPU only --small can be measured")
    with tempfile.TemporaryDirectory() as scratch:
        until = time.perf_counter() + arguments.seconds
        steps = arguments.steps or (3 if small else 12)
        bench = Bench(device, small, steps, 256 if small else 16_384, until, Path(scratch))
        peak = matrix_peak(device, small)
        record: dict[str, Any] = {
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            "small": small,
            "matrix_peak_bf16": peak,
            "sections": {},
            "left_out": [],
            "circumstances": asdict(circumstances("bfloat16")),
            "peers": {name: version(name) for name in ("trl", "liger-kernel") if find_spec(name.replace("-", "_"))},
        }
        for name, measure in sections(bench, peak):
            if arguments.only not in name:
                continue
            if time.perf_counter() > until:
                record["left_out"].append(name)
            else:
                record["sections"][name] = found = measured(measure)
                shown = {key: value for key, value in found.items() if key != "step_seconds"}
                print(name, json.dumps(shown), flush=True)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
