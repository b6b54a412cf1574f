"""What a step is said to take is what it takes, as far as that can be seen on a CPU."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import SHAREABLE
from tiny_runs import tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, LlamaConfig, Qwen2Config

from tiltlm.config import AdapterConfig
from tiltlm.model import memory as memory_module
from tiltlm.model.adapters import load_scorer, new_adapter, trained_parameters
from tiltlm.model.finding import ModelSource
from tiltlm.model.frozen import Base
from tiltlm.model.loading import autocast, checkpoint_activations
from tiltlm.model.memory import Way, checkpoint_bytes, fake_batch, step_memory
from tiltlm.model.steering_vectors import train_steering_vectors

CPU = torch.device("cpu")
ADAPTER = AdapterConfig(kind="lora", rank=4)
BASES = {"full": None, "float32": Base(), "bfloat16": Base("none", torch.bfloat16), "nf4": Base("nf4", torch.bfloat16)}


class RealPeak(TorchDispatchMode):
    """Bytes of real tensors alive at once, of those that operations made within."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.alive: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
        }
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.see(leaf.untyped_storage(), before)
        return made

    def see(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in before or key in self.alive:
            return
        self.now += size
        self.most = max(self.most, self.now)

        def gone(_: object) -> None:
            self.now -= size
            del self.alive[key]

        self.alive[key] = weakref.ref(storage, gone)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", ["full", "vectors", "float32", "bfloat16"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_what_is_planned_is_what_a_real_step_makes(
    name: str, again: bool, precision: torch.dtype, tmp_path: Path
) -> None:
    """Within 2%: the same operations on tensors with content, of a model that was loaded."""
    tiny_model("llama").save_pretrained(tmp_path)
    base, batch = BASES.get(name), fake_batch(32, 4, 40)
    scorer = load_scorer(ModelSource(str(tmp_path), True, False), CPU, base)
    scorer = scorer if base is None else new_adapter(scorer, ADAPTER, 0)
    if vectors := name == "vectors":
        train_steering_vectors(scorer.model)
    if again:
        checkpoint_activations(scorer.model)
    for own in scorer.trained().values():
        own.grad = torch.zeros_like(own)
    with RealPeak() as peak:
        with autocast(CPU, precision):
            logps = scorer(batch)
        logps.sum().backward()
    way = Way(base, ADAPTER, precision, "adamw", again, vectors)
    planned = step_memory(AutoConfig.from_pretrained(tmp_path), way, batch, CPU)
    assert planned.activations == pytest.approx(peak.most, rel=0.02)
    weights = sum(own.numel() * own.element_size() for own in scorer.parameters())
    assert (planned.weights, planned.trained) == (weights, trained_parameters(scorer))
    assert (planned.gradients, planned.moments) == (4 * planned.trained, 8 * planned.trained)


@pytest.mark.parametrize("quantise", ["nf4", "int8"])
def test_packed_weights_take_what_is_planned(quantise: Any, tmp_path: Path) -> None:
    """All that bitsandbytes keeps of a layer, constants and tables included, within a twentieth at this size."""
    sizes: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
    config = Qwen2Config(**sizes, vocab_size=64, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    base = Base(quantise)
    scorer = load_scorer(ModelSource(str(tmp_path), True, False), CPU, base)
    kept = {id(one.untyped_storage()): one.untyped_storage() for one in scorer.model.state_dict().values()}
    real = sum({storage._cdata: storage.nbytes() for storage in kept.values()}.values())
    way = Way(base, ADAPTER, torch.float32, "adamw", True)
    planned = step_memory(config, way, fake_batch(32, 1, 8), CPU)
    assert planned.weights - 4 * planned.trained == pytest.approx(real, rel=0.05)


def test_a_model_of_1500_million_parameters_is_planned_without_its_weights() -> None:
    sizes: dict[str, Any] = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28}
    heads: dict[str, Any] = {"num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True}
    config = Qwen2Config(vocab_size=151_936, **sizes, **heads)
    batch = fake_batch(512, 8, 2048)
    found = step_memory(config, Way(None, None, torch.bfloat16, "adamw", False), batch, CPU)
    layers = 28 * (2 * 1536 * 1536 + 2 * 1536 * 256 + 3 * 1536 * 8960)
    assert found.parameters == found.trained == layers + 28 * (2 * 1536 + 1536 + 2 * 256) + 1536 + 151_936 * 1536
    assert found.weights == found.gradients == 4 * found.parameters
    assert found.checkpoint == checkpoint_bytes(found.trained, "adamw") == 12 * found.trained
    assert found.total - 16 * found.parameters == found.activations > 28 * 4096 * 10 * 1536


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("vocabulary", [64, 65_536])
def test_a_deep_model_is_told_from_two_shallow_ones(vocabulary: int, again: bool) -> None:
    """Whatever is kept; also where few layers take less than the gradients of a large vocabulary, which many do not."""
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 24}
    config = Qwen2Config(
        **sizes, vocab_size=vocabulary, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True
    )
    way, batch = Way(None, None, torch.bfloat16, "adamw", again), fake_batch(512, 2, 300)
    told = step_memory(config, way, batch, CPU)
    whole = memory_module._looked_at(config, way, batch, CPU).most()
    assert told.activations == pytest.approx(whole.activations, rel=0.02)
    assert replace(told, activations=0) == replace(whole, activations=0)


@pytest.mark.parametrize("again", [False, True])
def test_so_it_is_where_the_upper_half_alone_is_trained(again: bool) -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=24, num_attention_heads=4
    )
    way, batch = Way(None, None, torch.float32, "adamw", again, vectors=True), fake_batch(512, 2, 300)
    told = step_memory(config, way, batch, CPU)
    whole = memory_module._looked_at(config, way, batch, CPU).most()
    assert told.activations == pytest.approx(whole.activations, rel=0.05)
    assert replace(told, activations=0) == replace(whole, activations=0)
    assert told.trained == 12 * 32


def test_more_tokens_and_kept_activations_take_more() -> None:
    config = SHAREABLE["llama"]()
    way = Way(None, None, torch.float32, "rmsprop", False)
    small, large = (step_memory(config, way, fake_batch(32, rows, 32), CPU) for rows in (2, 8))
    assert 3 < large.activations / small.activations < 5
    assert small.moments == small.gradients == small.weights
