"""A tiny model's folder as transformers saves it, and the ways in which people's folders differ from it. For tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_tokenizers import byte_level
from transformers import LlamaConfig, LlamaForCausalLM

Weights = dict[str, torch.Tensor]


def save_tiny(folder: Path, **settings: Any) -> Path:
    """A Llama of two layers with its tokenizer; returns the folder."""
    tokenizer = byte_level(pad="<eos>")
    torch.manual_seed(0)
    usual = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": False,
    }
    config = LlamaConfig(**usual | settings)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def change_weights(folder: Path, change: Callable[[Weights], Weights]) -> None:
    """Rewrites the weights' file."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def change_json(folder: Path, name: str = "config.json", **values: Any) -> None:
    """Sets values in a JSON file, made where it is not there."""
    path = folder / name
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}))


def shard_weights(folder: Path) -> list[Path]:
    """Spreads the weights over several safetensors files; returns them."""
    model = LlamaForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="8KB")
    return sorted(folder.glob("model-*.safetensors"))


def pickle_weights(folder: Path, shards: int = 1, also: object = None) -> Path:
    """Puts pytorch_model.bin in the place of the safetensors file; `also` is pickled beside the weights.

    Returns:
        The folder.
    """
    weights: dict[str, Any] = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if also is not None:
        weights["also"] = also
    if shards == 1:
        torch.save(weights, folder / "pytorch_model.bin")
        return folder
    placed = {name: f"pytorch_model-{number % shards}.bin" for number, name in enumerate(weights)}
    for shard in set(placed.values()):
        torch.save({name: tensor for name, tensor in weights.items() if placed[name] == shard}, folder / shard)
    index = {"metadata": {"total_size": 1}, "weight_map": placed}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder
