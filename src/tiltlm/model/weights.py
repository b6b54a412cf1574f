"""A model's weights: every one of them from its files, or an error that says which are not and why."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig, PreTrainedModel

from tiltlm.config.adapter_config import Quantisation
from tiltlm.errors import ModelError
from tiltlm.model.finding import ModelSource, explained
from tiltlm.model.fused_layers import fuse_layers
from tiltlm.model.weight_files import require_safe_weights

NAMED = 3
"""Weights named in a message; the rest is counted."""

_WRAPPERS = {
    "module.": "torch's DistributedDataParallel or DataParallel",
    "_orig_mod.": "torch.compile",
    "_forward_module.": "Lightning",
    "_fsdp_wrapped_module.": "torch's FullyShardedDataParallel",
    "base_model.model.": "peft",
}
"""What puts which prefix before the names of weights."""

HEADS = ("score.", "classifier.", "v_head.", "value_head.", "reward_head.", "regression_layer.", "qa_outputs.")
"""Output layers of models that give one number or a few: reward models, classifiers."""

_QUANTISED = (".qweight", ".qzeros", ".g_idx", ".SCB", ".absmax", ".quant_map", ".weight_scale", ".weight_scale_inv")
"""Endings of what lies beside quantised weights."""

_REPEATABLE = (".inv_freq", ".position_ids", ".attn.bias", ".attn.masked_bias", ".attention.bias")
"""Endings of tensors that older files hold or lack: the model computes them itself."""


def load_model(
    source: ModelSource,
    device: torch.device,
    note: Callable[[str], None] = lambda sentence: None,
    quantise: Quantisation = "none",
) -> PreTrainedModel:
    """The model with float32 weights, in evaluation mode: dropout is off for policy and reference alike.

    Args:
        note: called with each thing worth knowing about the files: weights in them that have no place in the model.
        quantise: how layers are packed as they are read, by bitsandbytes; the output layer is not.

    Raises:
        ModelError: it cannot be had, is not a causal language model, some of its weights are not in its files, or they
            are in files that are not safe to read.
    """
    model = read_model(source, torch.float32, note, {} if quantise == "none" else _packed(quantise, device))
    if quantise == "none":
        torch.nn.Module.to(model, device)
    if device.type == "cpu":
        _leave_files(model)
    fuse_layers(model)
    return model


def read_model(
    source: ModelSource, dtype: torch.dtype, note: Callable[[str], None], packing: Mapping[str, Any] | None = None
) -> PreTrainedModel:
    """The model in evaluation mode, with weights of a type, where transformers puts them: those that have that type in
    their files are pages of these.

    packing: how layers are packed as they are read.

    Raises:
        ModelError: as `load_model`.
    """
    require_safe_weights(source)
    model, report = read_reported(source, dtype, packing or {})
    if (fault := explain_report(report)) is not None:
        raise ModelError(f"the weights of `{source.location}` cannot be used: {fault}")
    if report.unexpected:
        note(
            f"{_counted(report.unexpected)} in the files of `{source.location}` "
            f"{_has(report.unexpected)} no place in a {type(model).__name__}, and will not be in the trained model: "
            f"{_names(report.unexpected)}."
        )
    _make_saveable(model, note)
    model.eval()
    # The table gives the padding token no gradient; but it is often the EOS, which every answer ends with. Padding
    # itself is never scored nor seen, so it sends none.
    embeddings = model.get_input_embeddings()
    if isinstance(embeddings, torch.nn.Embedding):
        embeddings.padding_idx = None
    return model


def _leave_files(model: PreTrainedModel) -> None:
    """Copies weights that are pages of their files into memory of the process: it has larger pages (kept_memory.py),
    and there a step reads and changes them twice as fast."""
    for weight in model.parameters():
        weight.data = weight.data.clone()


def _packed(quantise: Quantisation, device: torch.device) -> dict[str, Any]:
    """How transformers is asked to quantise while it reads. NF4 with its constants quantised too is QLoRA's
    (arXiv 2305.14314, section 3)."""
    kinds: dict[str, dict[str, Any]] = {
        "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        "int8": {"load_in_8bit": True},
    }
    return {"quantization_config": BitsAndBytesConfig(**kinds[quantise]), "device_map": {"": device}}


def read_reported(
    source: ModelSource, dtype: torch.dtype, packing: Mapping[str, Any], kind: Any = AutoModelForCausalLM
) -> tuple[PreTrainedModel, LoadReport]:
    """A model from its safetensors files, and where its weights and theirs part: those that are missing are random.

    packing: how layers are packed as they are read. kind: the class of transformers that reads it.

    Raises:
        ModelError: it cannot be had.
    """
    with explained(source, "model"), _without_load_report():
        loaded: Any = kind.from_pretrained(
            source.location,
            dtype=dtype,
            use_safetensors=True,
            # A shape that does not fit is reported like a name that does not fit, rather than raised.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            local_files_only=source.local_files_only,
            trust_remote_code=source.trust_remote_code,
            **packing,
        )
        model: PreTrainedModel = loaded[0]
        found: dict[str, Collection[Any]] = loaded[1]
        trained = {name for name, _ in model.named_parameters()}
        missing, unexpected = (
            tuple(sorted(name for name in found[kind] if name in trained or not name.endswith(_REPEATABLE)))
            for kind in ("missing_keys", "unexpected_keys")
        )
        mismatched = ((name, tuple(file), tuple(own)) for name, file, own in found["mismatched_keys"])
        return model, LoadReport(missing, unexpected, tuple(sorted(mismatched)))


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Where a model's weights and those in its files part.

    missing: names that the model has and the files have not. unexpected: the reverse.
    mismatched: (name, shape in the files, shape in the model).
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]


def explain_report(report: LoadReport) -> str | None:
    """What is wrong with the files, what it probably means and how to mend it; None where nothing is."""
    if any(".lora_" in name for name in report.unexpected):
        return (
            f"they hold a LoRA adapter that is not merged ({_names(n for n in report.unexpected if '.lora_' in n)}). "
            "Merge it first (peft: merge_and_unload, then save_pretrained)."
        )
    if quantised := [name for name in report.unexpected if name.endswith(_QUANTISED)]:
        return (
            f"they are quantised ({_names(quantised)}), though config.json does not say so, and training needs them "
            "unquantised: name the model that these were made from."
        )
    if report.missing:
        counted = _counted(report.missing)
        fact = f"{counted} of the model {_is(report.missing)} not in the files: {_names(report.missing)}."
        return f"{fact} {_why_missing(report)}"
    if report.mismatched:
        name, in_file, in_model = report.mismatched[0]
        return (
            f"{_counted(report.mismatched)} {_has(report.mismatched)} another shape than config.json says: {name} is "
            f"{_shape(in_file)} in the files, {_shape(in_model)} by the configuration"
            f"{'' if len(report.mismatched) == 1 else ', and so on'}. "
            "Restore the config.json that belongs to these weights."
        )
    return None


def _why_missing(report: LoadReport) -> str:
    prefix = _common_prefix(report)
    if prefix is not None:
        maker = next((f", as {who} leaves them" for mark, who in _WRAPPERS.items() if prefix.startswith(mark)), "")
        return (
            f"The names in the files begin with `{prefix}`{maker}: take that off (name.removeprefix({prefix!r}) for "
            "every name), and save them again."
        )
    if any(name.startswith(HEADS) for name in report.unexpected):
        heads = [name for name in report.unexpected if name.startswith(HEADS)]
        return (
            f"The files hold {_names(heads)} instead: this is a reward model or a classifier, not a language model. "
            "Name the language model that it was made from."
        )
    if report.missing == ("lm_head.weight",):
        return (
            "If this model's output layer is its embeddings, set tie_word_embeddings to true in config.json; otherwise "
            "save it again with its output layer."
        )
    return "The download or the save was probably cut short, or config.json is another model's: restore the files."


def _common_prefix(report: LoadReport) -> str | None:
    """What stands before every missing weight's name in the files; None where that does not explain half of them."""
    ends = tuple(report.missing)
    prefixes = Counter(
        name.removesuffix(end) for name in report.unexpected for end in ends if name != end and name.endswith(f".{end}")
    )
    (prefix, explains), *_ = prefixes.most_common(1) or [("", 0)]
    return prefix if 2 * explains >= len(ends) else None


@contextmanager
def _without_load_report() -> Iterator[None]:
    """transformers' table of missing and unexpected weights is left out: `load_model` says the same in sentences."""
    logger = logging.getLogger("transformers.modeling_utils")

    def keep(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _make_saveable(model: PreTrainedModel, note: Callable[[str], None]) -> None:
    """Mends generation settings that transformers reads but, at the end of a training, would refuse to write."""
    own = model.generation_config
    if own is None or _writable(own):
        return
    sampled = GenerationConfig.from_dict({**own.to_dict(), "do_sample": True})
    ends = GenerationConfig(eos_token_id=own.eos_token_id, bos_token_id=own.bos_token_id, pad_token_id=own.pad_token_id)
    mended = sampled if _writable(sampled) else ends
    what = "do_sample is set there" if mended is sampled else "only its special tokens are kept"
    note(f"generation_config.json contradicts itself, and transformers does not write such files: {what}.")
    model.generation_config = mended


def _writable(settings: GenerationConfig) -> bool:
    try:
        settings.validate(strict=True)
    except ValueError:
        return False
    return True


def _counted(weights: Collection[object]) -> str:
    return "1 weight" if len(weights) == 1 else f"{len(weights)} weights"


def _is(weights: Collection[object]) -> str:
    return "is" if len(weights) == 1 else "are"


def _has(weights: Collection[object]) -> str:
    return "has" if len(weights) == 1 else "have"


def _names(weights: Iterable[str]) -> str:
    names = list(weights)
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _shape(sizes: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in sizes) or "a single number"
