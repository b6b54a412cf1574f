"""A trainer's state in files: tensors as safetensors, the rest as JSON. Reading them runs nothing that is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from tiltlm.training.state import TrainerState

WEIGHTS, TENSORS, STRUCTURE = "weights.safetensors", "state.safetensors", "state.json"
"""The model's weights by their names; the state's other tensors; how these and plain values make up the state."""
FILES = (WEIGHTS, TENSORS, STRUCTURE)

Plain = dict[str, Any] | list[Any] | str | int | float | bool | None


def write_state(state: TrainerState, folder: Path) -> None:
    """Writes the files of a state into a folder."""
    table = state.to_dict()
    weights = table.pop("model")
    structure, tensors = taken_apart(table)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / WEIGHTS)
    save_file(tensors, folder / TENSORS)
    (folder / STRUCTURE).write_text(json.dumps(structure), encoding="utf-8")


def read_state(folder: Path) -> TrainerState:
    """The state that `write_state` was given, its tensors on the CPU."""
    structure = json.loads((folder / STRUCTURE).read_text(encoding="utf-8"))
    table = put_together(structure, load_file(folder / TENSORS))
    return TrainerState.from_dict({"model": load_file(folder / WEIGHTS), **table})


def taken_apart(value: Any, place: str = "") -> tuple[Plain, dict[str, Tensor]]:
    """Nested containers of tensors and plain values as JSON that names the tensors, and the tensors by these names.

    JSON knows neither tuples nor keys that are numbers, so every container says what it is.
    """
    if isinstance(value, Tensor):
        return {"tensor": place}, {place: value.contiguous()}
    if isinstance(value, dict):
        kind, keys, inner = "dict", list(value), list(value.values())
    elif isinstance(value, list | tuple):
        kind, keys, inner = type(value).__name__, list(range(len(value))), list(value)
    else:
        assert value is None or isinstance(value, str | int | float | bool), f"{place} holds a {type(value).__name__}"
        return value, {}
    tensors: dict[str, Tensor] = {}
    parts = []
    for key, item in zip(keys, inner, strict=True):
        plain, own = taken_apart(item, f"{place}/{key!r}".lstrip("/"))
        tensors |= own
        parts.append([key, plain] if kind == "dict" else plain)
    return {kind: parts}, tensors


def put_together(plain: Plain, tensors: dict[str, Tensor]) -> Any:
    """What `taken_apart` was given."""
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: put_together(item, tensors) for key, item in content}
    items = [put_together(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
