"""Which files hold a model's weights, and whether they can be read without running code or leaving the model's folder.

Weights are read from safetensors alone. A pickle (pytorch_model.bin) is a program that its reader runs; torch's
restricted reader of it (weights_only) has had holes (CVE-2025-32434), so no such file is opened, wherever it lies.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import file_exists
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import safe_open

from tiltlm.errors import ModelError
from tiltlm.model.finding import PICKLED_WEIGHTS, SAFE_WEIGHTS, ModelSource

NAMED = 3
"""Files named in a message; the rest is counted."""

_OTHER_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".npz"}


def require_safe_weights(source: ModelSource) -> None:
    """Looks at the names of a model's files before any of its weights is read.

    Raises:
        ModelError: its weights are pickled; a folder holds none; or its index of several files names one outside.
    """
    whole, index = (source.file(name) for name in SAFE_WEIGHTS)
    if whole is not None:
        return
    if index is not None:
        _require_within(source, index)
        return
    pickled = next((name for name in PICKLED_WEIGHTS if _is_there(source, name)), None)
    if pickled is not None:
        raise ModelError(
            f"the weights of `{source.location}` are in {pickled} alone, which is a pickle: reading it can run code, "
            "so it is not read. Name a model with a model.safetensors; or, if you trust this one, convert it once with "
            "transformers: AutoModelForCausalLM.from_pretrained(MODEL).save_pretrained(FOLDER), and copy its "
            "tokenizer's files there."
        )
    folder = Path(source.location)
    if folder.is_dir():
        others = sorted(path.name for path in folder.iterdir() if path.suffix in _OTHER_WEIGHTS)
        there = f" (there is {', '.join(others[:NAMED])}, which is not read)" if others else ""
        raise ModelError(
            f"the folder {folder} holds no weights: it has neither {SAFE_WEIGHTS[0]} nor {SAFE_WEIGHTS[1]}{there}. "
            "Save the model there with transformers' save_pretrained."
        )


def safe_files(source: ModelSource) -> list[Path] | None:
    """The safetensors files of a model; None where it has none, or not all of them."""
    whole, index = (source.file(name) for name in SAFE_WEIGHTS)
    if whole is not None:
        return [whole]
    if index is None:
        return None
    placed = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {})
    files = [source.file(name) for name in sorted(set(placed.values()))]
    found = [file for file in files if file is not None]
    return found if found and len(found) == len(files) else None


def type_in_files(source: ModelSource) -> torch.dtype:
    """The type that all weights of a model have in its files; float32 where they have several, or another."""
    types: set[str] = set()
    for path in safe_files(source) or []:
        with safe_open(path, "pt") as file:
            types |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - it is no dict
    floats = {kind for kind in types if kind.startswith(("F", "BF"))}
    return _TYPES.get(next(iter(floats)), torch.float32) if len(floats) == 1 else torch.float32


_TYPES = {"BF16": torch.bfloat16, "F16": torch.float16}


def _is_there(source: ModelSource, name: str) -> bool:
    """Whether the model has such a file; nothing is fetched."""
    if Path(source.location).is_dir():
        return (Path(source.location) / name).is_file()
    if source.local_files_only:
        return source.file(name) is not None
    try:
        return file_exists(source.location, name)
    except (HfHubHTTPError, HFValidationError, OSError):  # loading says what is the matter
        return False


def _require_within(source: ModelSource, index: Path) -> None:
    """Refuses an index that names files by a path: it could reach any file of this machine."""
    try:
        content: Any = json.loads(index.read_text(encoding="utf-8"))
        names = set(content["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{index.name} of `{source.location}` is damaged and cannot be read ({error!r:.100}): restore the file."
        ) from error
    outside = sorted(str(name) for name in names if not _is_plain(name))
    if outside:
        raise ModelError(
            f"{index.name} of `{source.location}` names files that are not beside it, and they are not read: "
            f"{', '.join(outside[:NAMED])}. Restore the index that belongs to these weights."
        )


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and not set(name) & set("/\\:\0")
