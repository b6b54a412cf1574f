"""Tiny random models of every supported architecture, and a slow oracle that scores one sequence at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    GraniteConfig,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    RecurrentGemmaConfig,
)

from tiltlm.data.tokens.token_columns import TokenizedSequence

VOCABULARY = 64

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_IDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_LOCAL_AND_GLOBAL = ["sliding_attention", "full_attention"]

SHAREABLE: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, **_IDS),
    "llama": lambda: LlamaConfig(**_COMMON),
    "qwen2": lambda: Qwen2Config(**_COMMON),
    "qwen3": lambda: Qwen3Config(**_COMMON),
    "mistral, sliding window": lambda: MistralConfig(**_COMMON, sliding_window=5),
    "gemma3, sliding and full layers, soft-capped logits": lambda: Gemma3TextConfig(
        **_COMMON, sliding_window=5, layer_types=_LOCAL_AND_GLOBAL, final_logit_softcapping=3.0
    ),
    "gpt_neox": lambda: GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        **_IDS,
    ),
    "phi3": lambda: Phi3Config(**_COMMON),
    "phi3, sliding window": lambda: Phi3Config(**_COMMON, sliding_window=5),
    "olmo2": lambda: Olmo2Config(**_COMMON),
    "opt": lambda: OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=32,
        **_IDS,
    ),
    "cohere, scaled logits": lambda: CohereConfig(**_COMMON, logit_scale=0.3),
    "granite, scaled logits": lambda: GraniteConfig(**_COMMON, logits_scaling=3.0),
}

UNSHAREABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "mamba": (
        lambda: MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4, **_IDS),
        "carry a state",
    ),
    "recurrent_gemma": (
        lambda: RecurrentGemmaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            lru_width=32,
            **_IDS,
        ),
        "carry a state",
    ),
    "lfm2, convolutions": (
        lambda: Lfm2Config(**_COMMON, layer_types=["conv", "full_attention"]),
        "layers of the kind conv",
    ),
    "bloom, alibi": (
        lambda: BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, **_IDS),
        "no position ids",
    ),
    "gpt_neo, local attention by column": (
        lambda: GPTNeoConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            window_size=4,
            max_position_embeddings=64,
            **_IDS,
        ),
        "no mask of ours",
    ),
    "gemma2, soft-capped attention": (
        lambda: Gemma2Config(**_COMMON, sliding_window=5, layer_types=_LOCAL_AND_GLOBAL),
        "no mask of ours",
    ),
}


def build(config: Any, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """A random model with weights large enough that every path through it matters."""
    torch.manual_seed(0)
    # transformers remarks on each tiny model's default generation settings.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def family(seed: int = 0, prompts: int = 3) -> list[TokenizedSequence]:
    """Sequences as training has them and worse: several completions of a prompt, two of which begin alike."""
    rng = np.random.default_rng(seed)
    sequences = []
    for _ in range(prompts):
        prompt = np.concatenate([[1], rng.integers(3, VOCABULARY, rng.integers(4, 9))])
        stem = rng.integers(3, VOCABULARY, 2)
        for beginning in (stem, stem, np.empty(0, dtype=np.int64)):
            ending = rng.integers(3, VOCABULARY, rng.integers(3, 9))
            ids = np.concatenate([prompt, beginning, ending]).astype(np.int32)
            sequences.append(TokenizedSequence(ids, len(prompt)))
    return sequences


def one_at_a_time(model: PreTrainedModel, sequences: Sequence[TokenizedSequence]) -> Tensor:
    """The oracle: stock transformers, one sequence, full logits; sums over scored tokens, shape (sequences,)."""
    sums = []
    for sequence in sequences:
        ids = torch.from_numpy(sequence.ids).long()
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logps = wide.log_softmax(-1)[:-1].gather(-1, ids[1:, None]).squeeze(-1)
        sums.append(logps[sequence.first_scored - 1 :].sum())
    return torch.stack(sums)
