"""A tiny model and its tokenizer on disk, and trainers on tiny pairs: for tests of whole stages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tiltlm.records import ReferencedPair
from tiny_models import SHAREABLE, VOCABULARY, build
from tiny_tokenizers import CHAT_TEMPLATE, byte_level
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from tiltlm.config import Config, LossConfig, ModelConfig, RunConfig, TrainingConfig
from tiltlm.data.tokens.token_columns import TokenizedExample, TokenizedSequence
from tiltlm.model.reference import ReferenceCache, fill_cache, reference_address, with_reference
from tiltlm.model.scorer import PairScorer
from tiltlm.training.loop import Trainer


def tiny_model(name: str = "llama", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return build(SHAREABLE[name](), dtype)


def pairs(count: int, seed: int = 0) -> list[TokenizedExample]:
    """Random pairs of uneven lengths over the tiny vocabulary, ending in EOS (2)."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        prompt = [1, *rng.integers(3, VOCABULARY, rng.integers(2, 12))]
        sides = []
        for _ in range(2):
            completion = [*rng.integers(3, VOCABULARY, rng.integers(1, 9)), 2]
            sides.append(TokenizedSequence(np.array([*prompt, *completion], dtype=np.int32), len(prompt)))
        made.append(TokenizedExample.pair(f"pair {number}", *sides))
    return made


def referenced(scorer: PairScorer, given: list[TokenizedExample], folder: Path) -> list[ReferencedPair]:
    cache = ReferenceCache(folder, reference_address(scorer, torch.float32))
    fill_cache(scorer, given, cache, torch.float32, 256, lambda done: None)
    joined = with_reference(given, cache)
    cache.close()
    return joined


def trainer(
    scorer: PairScorer, training: TrainingConfig, loss: LossConfig | None = None, reference: str | None = None
) -> Trainer:
    config = Config(
        run=RunConfig(name="tiny"), loss=loss or LossConfig(), training=training, model=ModelConfig(reference=reference)
    )
    return Trainer(scorer, config, torch.float32)


def write_model(folder: Path, seed: int = 0, chat: bool = False) -> Path:
    """A random GPT-2 of a few thousand weights and its byte-level tokenizer, as `save_pretrained` leaves them."""
    tokenizer = byte_level(chat_template=CHAT_TEMPLATE if chat else None)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 1024, "initializer_range": 0.3}
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **ends)).save_pretrained(folder)
    return folder


def write_pairs(path: Path, count: int = 8) -> Path:
    """Short pairs of text, each with a prompt of its own."""
    rows = [{"prompt": f"Is {n} a number? Answer:", "chosen": " yes", "rejected": " no"} for n in range(count)]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path
