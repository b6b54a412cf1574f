"""A trained model back to files that stock transformers and vLLM load, without losing what it learned."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

from tiltlm.config import SaveDtype
from tiltlm.errors import ModelError
from tiltlm.model.dither import HALF_UNIT, move, noise
from tiltlm.model.loading import ModelSource

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Files that belong to a model and that neither its weights nor its tokenizer write.
_CARRIED = (
    "preprocessor_config.json",
    "processor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
)


def choose_save_dtype(setting: SaveDtype, source: ModelSource) -> tuple[torch.dtype, str]:
    """The type of the saved weights, and a sentence that says why: as set, or that of the source's own files.

    Raises:
        ModelError: the source's configuration cannot be had.
    """
    if setting != "auto":
        return DTYPES[setting], f"saved in {setting}, as set"
    try:
        config = AutoConfig.from_pretrained(
            source.location,
            local_files_only=source.local_files_only,
            trust_remote_code=source.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"the configuration of `{source.location}` cannot be loaded: {error}") from error
    stored = getattr(config.get_text_config(), "dtype", None) or getattr(config, "dtype", None)
    if stored in (torch.bfloat16, torch.float16):
        name = str(stored).removeprefix("torch.")
        return stored, f"saved in {name}, as the source's files are (model.save_dtype)"
    return torch.float32, "saved in float32, as the source's files are"


@torch.no_grad()
def round_weights(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Turns the float32 weights into those a file of `dtype` holds, in place.

    Rounding to the nearest would lose every change below half a unit in the last place, at small learning rates most
    of the training. So weights are rounded up or down at random, in proportion to what is nearer, which is right on
    average: to bfloat16 with the numbers of the dither, so that a model trained in bfloat16 is saved with the very
    weights that its last step computed with. The numbers depend on name and index alone: the same weights give the
    same file. Source: stochastic rounding, e.g. arXiv 1502.02551.
    """
    if dtype is torch.float32:
        return
    for name, parameter in model.named_parameters():
        if dtype is torch.bfloat16:
            move(parameter.data, name, 1)
        else:
            _dither_float16(parameter.data, name)
    # One conversion keeps tied weights tied, and buffers that are no weights as they are.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _dither_float16(weights: torch.Tensor, name: str) -> None:
    # float16 has a smallest unit, 2^-24, within reach of ordinary weights; so the number is added to the value.
    flat = weights.view(-1)
    exponent = torch.frexp(flat).exponent.clamp_(min=-13)
    numbers = noise(name, 0, flat.numel(), flat.device) / (2 * HALF_UNIT)
    limit = torch.finfo(torch.float16).max
    flat.add_(torch.ldexp(numbers, exponent - 11)).clamp_(-limit, limit)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, source: ModelSource, folder: Path) -> None:
    """Writes safetensors, configuration, tokenizer, chat template, and the processor files of the source.

    The weights are written in the type they have.
    """
    dtype = next(model.parameters()).dtype
    for config in (model.config, model.config.get_text_config()):
        config.dtype = dtype
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name in _CARRIED:
        found = _source_file(source, name)
        if found is not None and not (folder / name).exists():
            shutil.copyfile(found, folder / name)


def _source_file(source: ModelSource, name: str) -> str | None:
    found: str | None = cached_file(
        source.location,
        name,
        local_files_only=source.local_files_only,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return found
