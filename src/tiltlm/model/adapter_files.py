"""Adapters as peft writes them: what an adapter_config.json says, and which of them can be trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tiltlm.config.adapter_config import AdapterKind
from tiltlm.errors import ModelError

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_STARTS_AT_BASE = (None, True, False, "gaussian", "eva")
"""Ways in which peft begins a LoRA that leave the model's own weights as they are (False: whatever was trained)."""
_READ = frozenset(
    {"peft_type", "task_type", "base_model_name_or_path", "inference_mode", "auto_mapping", "revision", "peft_version"}
    | {"r", "lora_alpha", "target_modules", "exclude_modules", "fan_in_fan_out", "use_rslora", "use_dora"}
    | {"layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "lora_dropout", "runtime_config"}
)
"""What an adapter may say that is followed, or that says nothing of its weights."""
_MEANS_NOTHING = ("megatron_core", "eva_config", "qalora_group_size", "init_lora_weights", "bias")
"""What is set without effect on its own, or looked at on its own."""
_WHY = {
    "modules_to_save": "whole layers are kept beside the matrices, and stay trained when the adapter is off",
    "trainable_token_indices": "it trains embeddings of tokens, which merging would write into a tied output layer",
    "target_parameters": "it adds to parameters that are no layers",
    "layer_replication": "it makes another model of layers repeated",
    "alora_invocation_tokens": "it begins at a token, and rows of several sequences have several",
    "lora_bias": "it has biases, which merge only where the layer has one",
    "loftq_config": "the model's own weights were changed when it began",
}


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What an adapter says of itself.

    kind, rank, alpha: as in the settings. dropout: with which it was trained before. settings: the file.
    """

    kind: AdapterKind
    rank: int
    alpha: float
    dropout: float
    base: str
    settings: dict[str, Any]


def adapter_facts(location: str, settings: dict[str, Any]) -> AdapterFacts:
    """Reads an adapter_config.json, as far as it can be trained on, evaluated and merged as it stands.

    Raises:
        ModelError: it cannot; the message says for what and how to mend it.
    """
    kind, what = str(settings.get("peft_type")).upper(), f"the adapter in `{location}`"
    if kind != "LORA":
        raise ModelError(
            f"{what} is of the kind {settings.get('peft_type')}; those of the kind LORA (LoRA, rsLoRA, DoRA) can be "
            f"trained on. Merge it into its model if it can be (peft: merge_and_unload), and name that.{_CANNOT_MERGE}"
        )
    task = settings.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise ModelError(f"{what} was made for the task {task}, not for a causal language model (CAUSAL_LM).")
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(
            f"{what} does not say of which model it is: write the model's name or folder into {ADAPTER}, as "
            "base_model_name_or_path."
        )
    _refuse_corrupting(what, settings)
    rank, alpha = settings.get("r", 8), settings.get("lora_alpha", 8)
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1:
        raise ModelError(f"{what} is damaged: its rank is {rank!r} and its alpha {alpha!r}. Restore {ADAPTER}.")
    named: AdapterKind = "dora" if settings.get("use_dora") else "rslora" if settings.get("use_rslora") else "lora"
    return AdapterFacts(named, rank, float(alpha), float(settings.get("lora_dropout") or 0.0), base, settings)


def _refuse_corrupting(what: str, settings: dict[str, Any]) -> None:
    start = settings.get("init_lora_weights", True)
    if start not in _STARTS_AT_BASE:
        raise ModelError(
            f"{what} began as `{start}` (init_lora_weights), which changed its model's own weights: on the model as it "
            f"is the adapter is wrong. {_MERGE}"
        )
    if (bias := settings.get("bias", "none")) != "none":
        raise ModelError(
            f"{what} trained biases of its model too (bias is `{bias}`), which stay when the adapter is off. {_MERGE}"
        )
    for name, value in settings.items():
        if not value or name in _READ or name in _MEANS_NOTHING:
            continue
        why = _WHY.get(name, "what that does to its weights is not known here")
        raise ModelError(f"{what} has {name} set ({str(value)[:80]}): {why}. {_MERGE}")


_MERGE = "Merge it into its model with what made it (peft: merge_and_unload, save_pretrained), and name that model."
_CANNOT_MERGE = " Prefixes and prompts cannot be merged."
