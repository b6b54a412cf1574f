"""Models and tokenizers, from the hub or a folder, and back to a folder that stock transformers loads."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from tiltlm.config import HubConfig, Precision
from tiltlm.errors import ConfigError, ModelError
from tiltlm.hub import hub_is_reachable
from tiltlm.model.embedded import embedded_model

EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model is loaded from: a folder or a hub id, and whether the network may be used."""

    location: str
    local_files_only: bool
    trust_remote_code: bool


def find_model(path: str, hub: HubConfig, trust_remote_code: bool = False) -> ModelSource:
    """Resolves `embedded`, a folder, an id below `hub.folder`, or a hub id, in that order.

    Raises:
        ModelError: it is none of these, with what was looked for and how to give it locally.
    """
    if path == EMBEDDED:
        return ModelSource(str(embedded_model()), True, False)
    candidates = [Path(path).expanduser()]
    if hub.folder is not None:
        candidates.append(Path(hub.folder).expanduser() / path)
    for folder in candidates:
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise ModelError(f"the folder {folder} holds no model: it has no config.json.")
            return ModelSource(str(folder), True, trust_remote_code)
    if hub.folder is not None:
        raise ModelError(
            f"there is no model in {candidates[-1]}: put the files of `{path}` there, or unset hub.folder."
        )
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ModelError(f"there is no model folder {path}.")
    return ModelSource(path, not hub_is_reachable(), trust_remote_code)


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerFast:
    """The model's fast tokenizer.

    Raises:
        ModelError: it cannot be had, or has no fast form (token offsets are needed).
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source.location,
            local_files_only=source.local_files_only,
            trust_remote_code=source.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise ModelError(_explain(source, "tokenizer", error)) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(f"the tokenizer of {source.location} has no fast form, and token offsets are needed.")
    return tokenizer


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What data preparation must know of a model whose weights are not loaded yet.

    positions: longest sequence the model knows, in tokens; None where it has no such limit.
    terminators: token ids that end an answer: the tokenizer's EOS and those of the generation configuration.
    """

    positions: int | None
    terminators: frozenset[int]


def model_facts(source: ModelSource, tokenizer: PreTrainedTokenizerFast) -> ModelFacts:
    """Reads a model's configuration files.

    Raises:
        ModelError: they cannot be had.
    """
    try:
        config = AutoConfig.from_pretrained(
            source.location,
            local_files_only=source.local_files_only,
            trust_remote_code=source.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise ModelError(_explain(source, "configuration", error)) from error
    text = config.get_text_config()
    try:
        generation = GenerationConfig.from_pretrained(source.location, local_files_only=source.local_files_only)
        ends = generation.eos_token_id
    except OSError:  # few older models have no such file
        ends = text.eos_token_id
    named = {ends} if isinstance(ends, int) else set(ends or ())
    own = {tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()
    return ModelFacts(getattr(text, "max_position_embeddings", None), frozenset(named | own))


def load_model(source: ModelSource, device: torch.device) -> PreTrainedModel:
    """The model with float32 weights, in evaluation mode: dropout is off for policy and reference alike.

    Raises:
        ModelError: it cannot be had, or is not a causal language model.
    """
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source.location,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=source.local_files_only,
            trust_remote_code=source.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise ModelError(_explain(source, "model", error)) from error
    torch.nn.Module.to(model, device)
    model.eval()
    return model


def _explain(source: ModelSource, what: str, error: Exception) -> str:
    if source.local_files_only and not Path(source.location).is_dir():
        return (
            f"the {what} of `{source.location}` is not in the local cache, and the Hugging Face hub cannot be reached. "
            f"Give it locally: --model.path FOLDER, or --hub.folder DIR with the files in DIR/{source.location}."
        )
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"the {what} of `{source.location}` cannot be loaded: {first_line}"


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Makes each layer recompute its activations in the backward pass.

    transformers' own switch works in training mode only, where dropout would come back; so the layers' forward is
    wrapped instead.

    Raises:
        ConfigError: the model's layers are not known to be safe to recompute.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError(f"training.activation_checkpointing has no effect on {type(model).__name__}: remove it.")
    for layer in layers:
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


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
        if units:
            return torch.bfloat16, f"bfloat16: the processor has {units[0]}"
    return torch.float32, f"float32: the {device.type} has no units for bfloat16"


def arithmetic(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """The context in which a model is run: autocast to the precision, or nothing where that is float32 already."""
    return torch.autocast(device.type, precision, enabled=precision is not torch.float32)
