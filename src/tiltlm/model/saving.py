"""A trained model back to files that stock transformers and vLLM load, without losing what it learned."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tiltlm.config import SaveDtype
from tiltlm.model.dither import move, noise
from tiltlm.model.finding import ModelSource
from tiltlm.storage.library_errors import as_os_error

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Files that belong to a model and that neither its weights nor its tokenizer write.
_CARRIED = (
    "preprocessor_config.json",
    "processor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
)


def choose_save_dtype(setting: SaveDtype, stored: torch.dtype | None) -> tuple[torch.dtype, str]:
    """The type of the saved weights, and a sentence that says why.

    stored: the type of the source's own files; None where they do not say.
    """
    if setting != "auto":
        return DTYPES[setting], f"saved in {setting}, as set"
    dtype = stored if stored in DTYPES.values() else torch.float32
    assert dtype is not None
    return dtype, f"saved in {str(dtype).removeprefix('torch.')}, as the source's files are (model.save_dtype)"


@torch.no_grad()
def round_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Turns the float32 weights into those a file of `dtype` holds, in place: see `rounded`."""
    # Tied weights stay tied, and buffers that are no weights as they are.
    for name, parameter in model.named_parameters():
        parameter.data = rounded(parameter.data, name, dtype)


@torch.no_grad()
def rounded(weights: torch.Tensor, name: str, dtype: torch.dtype, first: int = 0) -> torch.Tensor:
    """The weights of `name` as a file of `dtype` holds them. Float32 weights are changed on the way.

    Rounding to the nearest would lose every change below half a unit in the last place, at small learning rates most
    of the training. So weights are rounded up or down at random, in proportion to what is nearer, which is right on
    average: to bfloat16 with the numbers of the dither, so that a model trained in bfloat16 is saved with the very
    weights that its last step computed with. The numbers depend on name and index alone: the same weights give the
    same file. Source: stochastic rounding, e.g. arXiv 1502.02551.

    first: see `move`.
    """
    if dtype is torch.bfloat16:
        move(weights, name, 1, first)
    elif dtype is torch.float16:
        _dither_float16(weights, name, first)
    return weights.to(dtype)


def _dither_float16(weights: torch.Tensor, name: str, first: int) -> None:
    """Adds to each weight its number in units of float16, in place: as in bfloat16, but for 13 bits in place of 16.

    Below 2^-14, within reach of ordinary weights, the unit is 2^-24 whatever the weight.
    """
    flat = weights.view(-1)
    numbers = noise(name, first, flat.numel(), flat.device)
    moved = flat.view(torch.int32) + numbers.div(8, rounding_mode="trunc")
    small = flat.abs() < 2.0**-14
    flat.copy_(torch.where(small, flat + numbers * 2.0**-40, moved.view(flat.dtype)))
    limit = torch.finfo(torch.float16).max
    flat.clamp_(-limit, limit)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, source: ModelSource, folder: Path) -> None:
    """Writes safetensors, configuration, tokenizer, chat template, and the processor files of the source.

    The weights are written in the type they have.

    Raises:
        OSError: the folder cannot be written.
    """
    dtype = next(model.parameters()).dtype
    for config in (model.config, model.config.get_text_config()):
        config.dtype = dtype
    with as_os_error(folder):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for name in _CARRIED:
        found = source.file(name)
        if found is not None and not (folder / name).exists():
            shutil.copyfile(found, folder / name)
