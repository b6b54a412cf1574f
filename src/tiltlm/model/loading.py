"""What surrounds a model's weights: its tokenizer, limits, device and arithmetic, and how its layers are run."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tiltlm.config import Precision
from tiltlm.errors import ConfigError, ModelError
from tiltlm.model.finding import CONFIG, ModelSource, explained

_GENERATION = "generation_config.json"


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerFast:
    """The model's fast tokenizer.

    Raises:
        ModelError: it cannot be had, its files are missing, or it has no fast form (token offsets are needed).
    """
    if source.adapter is not None and any(source.adapter.file(name) for name in _VOCABULARIES):
        source = source.adapter  # it may have a chat template that the model has not
    elif not any(source.file(name) for name in (*_VOCABULARIES, "tokenizer_config.json")) and source.file(CONFIG):
        raise ModelError(_no_tokenizer(source))
    with explained(source, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            source.location,
            local_files_only=source.local_files_only,
            trust_remote_code=source.trust_remote_code,
        )
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(f"the tokenizer of {source.location} has no fast form, and token offsets are needed.")
    if tokenizer.vocab_size == 0:
        raise ModelError(_no_tokenizer(source))
    return tokenizer


_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
"""Files of which a tokenizer has one; some have names of their own, and those have a tokenizer_config.json beside."""


def _no_tokenizer(source: ModelSource) -> str:
    return (
        f"`{source.location}` has no tokenizer: among its files is no tokenizer.json, tokenizer.model or vocab.json. "
        "Copy tokenizer.json and tokenizer_config.json from the model that this one was trained from."
    )


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What data preparation must know of a model whose weights are not loaded yet.

    positions: longest sequence the model knows, in tokens; None where it has no such limit.
    rows: how many tokens it has embeddings for; None where the configuration does not say.
    terminators: token ids that end an answer: the tokenizer's EOS and those of the generation configuration.
    stored: the type of the weights in the model's files; None where the configuration does not say.
    """

    positions: int | None
    terminators: frozenset[int]
    stored: torch.dtype | None
    rows: int | None = None


def model_facts(source: ModelSource, tokenizer: PreTrainedTokenizerFast) -> ModelFacts:
    """Reads a model's configuration files.

    Raises:
        ModelError: they cannot be had, or are those of another kind of model than a causal language model.
    """
    with explained(source, "configuration"):
        config = AutoConfig.from_pretrained(
            source.location,
            local_files_only=source.local_files_only,
            trust_remote_code=source.trust_remote_code,
        )
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not getattr(config, "auto_map", None):
        raise ModelError(f"`{source.location}` is a {config.model_type} model, which is no causal language model.")
    generation = None
    if source.file(_GENERATION) is not None:
        with explained(source, _GENERATION):
            generation = GenerationConfig.from_pretrained(source.location, local_files_only=source.local_files_only)
    return facts_of(config, generation, tokenizer)


def facts_of(
    config: PreTrainedConfig, generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerFast
) -> ModelFacts:
    """What a model's configuration, and that of its generation if it has one, tell.

    Raises:
        ModelError: what ends an answer is no token.
    """
    text = config.get_text_config()
    ends = generation.eos_token_id if generation is not None else text.eos_token_id
    listed = ends if isinstance(ends, list | tuple) else [] if ends is None else [ends]
    if not all(isinstance(end, int) for end in listed):
        raise ModelError(
            f"the model's eos_token_id is {ends!r}, and should be the number of a token, or several: mend "
            f"{_GENERATION} or {CONFIG}."
        )
    named = set(listed)
    own = {tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()
    stored = getattr(text, "dtype", None) or getattr(config, "dtype", None)
    positions, rows = (getattr(text, name, None) for name in ("max_position_embeddings", "vocab_size"))
    if (positions is not None and positions < 1) or (rows is not None and rows < 1):
        raise ModelError(
            f"{CONFIG} of the model says that it knows {positions} positions and {rows} tokens (vocab_size): restore "
            "the file that belongs to its weights."
        )
    return ModelFacts(positions, frozenset(named | own), stored, rows)


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Makes each layer recompute its activations in the backward pass.

    transformers' own switch works in training mode only, where dropout would come back; so the layers' forward is
    wrapped instead.

    Raises:
        ConfigError: the model's layers are not known to be safe to recompute.
    """
    layers = layers_of(model)
    if not layers:
        raise ConfigError(f"training.activation_checkpointing has no effect on {type(model).__name__}: remove it.")
    for layer in layers:
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


def layers_of(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The model's layers, as transformers marks those that may be recomputed; none where it marks none."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def choose_device(setting: str) -> torch.device:
    """The device asked for, or the best there is.

    Raises:
        ConfigError: the device asked for is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if setting == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[setting]:
        raise ConfigError(f"model.device is `{setting}`, but PyTorch finds no such device here.")
    return torch.device(setting)


def choose_precision(setting: Precision, device: torch.device) -> tuple[torch.dtype, str]:
    """The arithmetic of forward and backward passes, and a sentence that says why."""
    if setting != "auto":
        return getattr(torch, setting), f"{setting}, as set"
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "bfloat16: the GPU has units for it"
    if device.type == "cpu":
        # Without such units bfloat16 is emulated, and can be a hundred times slower than float32.
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        units = [name for name in ("amx_bf16", "avx512_bf16") if capabilities.get(name)]
        # oneDNN may have been told to leave them alone (ONEDNN_MAX_CPU_ISA).
        if units and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return torch.bfloat16, f"bfloat16: the processor has {units[0]}"
    return torch.float32, f"float32: the {device.type} has no units for bfloat16"


def autocast(device: torch.device, precision: torch.dtype, keep: bool = False) -> torch.autocast:
    """The context in which a model is run: autocast to the precision, or nothing where that is float32 already.

    keep: whether rounded weights are kept to its end, as is wanted where they are used again and again. A layer that is
        recomputed, or gathered from ranks, would otherwise leave its own behind until all layers are through.
    """
    return torch.autocast(device.type, precision, enabled=precision is not torch.float32, cache_enabled=keep)
