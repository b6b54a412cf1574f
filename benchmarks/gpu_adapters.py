"""What adapters cost on one GPU beside full training, and how far `tiltlm plan` is off: memory, tokens a second.

python benchmarks/gpu_adapters.py --out FILE.json
python benchmarks/gpu_adapters.py --tiny --device cpu      # a model of a few thousand weights, without memory measured

A model of the sizes of Qwen2-1.5B with random weights is written to a scratch folder (3.1 GB) and loaded as a run would
load it. Each way takes a few DPO steps of random pairs, by the trainer of a run. Tokens are counted as they are laid
out, prompts once. The first step of each way is left out of the times. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, Qwen2Config

from tiltlm.config import AdapterConfig, TrainingConfig
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.demo.packages import QUANTISED, is_installed
from tiltlm.model.adapters import load_scorer, new_adapter, trained_parameters
from tiltlm.model.finding import ModelSource
from tiltlm.model.frozen import Base
from tiltlm.model.loading import checkpoint_activations
from tiltlm.model.memory import Way, step_memory
from tiltlm.model.scoring import score
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import CHOSEN, REJECTED
from tiltlm.training.bound_objective import BoundObjective
from tiltlm.training.loop import Trainer
from tiltlm.training.step_plans import Referenced
from tiltlm.training.stop import StopRequest

BASES: dict[str, Base | None] = {
    "full": None,
    "lora": Base("none", torch.float32),
    "lora, bfloat16 base": Base("none", torch.bfloat16),
    "lora, nf4 base": Base("nf4", torch.bfloat16),
}
ADAPTER = AdapterConfig(kind="lora", rank=16)


@dataclass(frozen=True, slots=True)
class Size:
    """How large everything is: lengths in tokens, pairs in a step."""

    prompt: int
    completion: int
    pairs: int
    micro_batch_tokens: int


LARGE, TINY = Size(256, 128, 16, 4096), Size(16, 8, 4, 128)


def qwen2(tiny: bool) -> PreTrainedConfig:
    """Qwen2-1.5B's configuration, or one of a few thousand weights."""
    sizes: dict[str, Any] = {
        "vocab_size": 151_936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
    }
    if tiny:
        sizes = {**dict.fromkeys(sizes, 2), "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64}
    return Qwen2Config(**sizes, tie_word_embeddings=True, max_position_embeddings=32_768)


def source_config(source: ModelSource) -> PreTrainedConfig:
    """As `tiltlm plan` reads it: without what loading has noted in it."""
    config: PreTrainedConfig = AutoConfig.from_pretrained(source.location)
    return config


def random_pairs(size: Size, steps: int, vocabulary: int) -> TokenColumns:
    """Pairs of one length, each with a prompt of its own."""
    rng = np.random.default_rng(0)
    examples = []
    for number in range(size.pairs * steps):
        prompt = rng.integers(3, vocabulary, size.prompt)
        ends = [rng.integers(3, vocabulary, size.completion) for _ in range(2)]
        sequences = [TokenizedSequence(np.concatenate([prompt, end]).astype(np.int32), size.prompt) for end in ends]
        examples.append(TokenizedExample(f"pair {number}", tuple(sequences), (CHOSEN, REJECTED)))
    return TokenColumns.of(examples)


def measured(
    base: Base | None, recompute: bool, source: ModelSource, pairs: TokenColumns, size: Size, device: torch.device
) -> dict[str, Any]:
    """Memory and speed of one way to train."""
    steps = len(pairs) // size.pairs
    training = TrainingConfig(
        batch_pairs=size.pairs, micro_batch_tokens=size.micro_batch_tokens, activation_checkpointing=recompute
    )
    start = time.perf_counter()
    scorer = load_scorer(source, device, base)
    values = score(scorer, pairs, torch.bfloat16, size.micro_batch_tokens)
    if base is not None:
        scorer = new_adapter(scorer, ADAPTER, 0)
    if recompute:
        checkpoint_activations(scorer.model)
    ready = time.perf_counter() - start
    objective = BoundObjective(OBJECTIVES["sigmoid"], OBJECTIVES["sigmoid"].settings())
    examples = Referenced(pairs, values)
    trainer = Trainer(scorer, objective, training, 0, torch.bfloat16, examples, examples)
    batch = max(trainer.plan_of(0).micro_batches, key=lambda one: one.tokens_RL.numel())
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    rows = [trainer.step(trainer.plan_of(step), StopRequest()) for step in range(steps)]
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    way = Way(base, ADAPTER, torch.bfloat16, training.optimizer, recompute)
    planned, why = None, None
    try:
        planned = step_memory(source_config(source), way, batch, device)
    except (RuntimeError, NotImplementedError, TypeError) as error:  # what was measured is not lost for that
        why = f"{type(error).__name__}: {error}"
    timed = rows[1:]
    return {
        "trained_parameters": trained_parameters(scorer),
        "activation_checkpointing": recompute,
        "peak_bytes": peak,
        "planned_bytes": planned.total if planned else None,
        "planned": asdict(planned) if planned else why,
        "planned_over_measured": planned.total / peak if peak and planned else None,
        "tokens_per_second": sum(row.tokens for row in timed) / sum(row.seconds for row in timed),
        "pairs_per_second": sum(row.examples for row in timed) / sum(row.seconds for row in timed),
        "losses": [row.loss for row in rows],
        "seconds_to_load_and_score": ready,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device, size, config = torch.device(arguments.device), TINY if arguments.tiny else LARGE, qwen2(arguments.tiny)
    pairs = random_pairs(size, arguments.steps, config.vocab_size)
    torch.manual_seed(0)
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "size": asdict(size),
        "ways": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(scratch)
        del model
        source = ModelSource(scratch, True, False)
        for name, base in BASES.items():
            if base is not None and base.quantise != "none" and not is_installed(QUANTISED):
                results["ways"][name] = "bitsandbytes is not installed"
                continue
            for recompute in (False, True):
                gc.collect()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                found = measured(base, recompute, source, pairs, size, device)
                results["ways"][f"{name}, activations recomputed" if recompute else name] = found
                shown = {key: value for key, value in found.items() if key not in ("planned", "losses")}
                print(name, json.dumps(shown), flush=True)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    else:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
