"""A trainer's state in files: tensors as safetensors, the rest as JSON. Reading them runs nothing that is in them.

One process writes its weights by their names, and its other tensors. Of several ranks each writes its shares, by
PyTorch's distributed checkpoints, and the first one what is not shared out; any number of ranks reads them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.training.state import TrainerState

WEIGHTS, TENSORS, STRUCTURE = "weights.safetensors", "state.safetensors", "state.json"
"""The model's weights by their names; the state's other tensors; how these and plain values make up the state."""
FILES = (WEIGHTS, TENSORS, STRUCTURE)
SHARES = "shard-*.safetensors"
"""What ranks wrote of what is shared out over them."""

Plain = dict[str, Any] | list[Any] | str | int | float | bool | None


def write_state(state: TrainerState, folder: Path) -> None:
    """Writes the files of one process's state into a folder."""
    table = state.to_dict()
    weights = table.pop("model")
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / WEIGHTS)
    _write(*taken_apart(table), folder)


def _write(structure: Plain, tensors: dict[str, Tensor], folder: Path) -> None:
    save_file({place: own.contiguous() for place, own in tensors.items()}, folder / TENSORS)
    (folder / STRUCTURE).write_text(json.dumps(structure), encoding="utf-8")


@dataclass(frozen=True, slots=True, eq=False)
class SharedState:
    """A state of several ranks: what is shared out over them, by names of places, and what each has."""

    structure: Plain
    shared: dict[str, Tensor]
    alike: dict[str, Tensor]

    @staticmethod
    def of(state: TrainerState) -> SharedState:
        """Of what is not shared out it is a copy."""
        structure, tensors = taken_apart(state.to_dict())
        shared: dict[str, Tensor] = {place: own for place, own in tensors.items() if isinstance(own, DTensor)}
        alike = {place: own.to("cpu", copy=True) for place, own in tensors.items() if place not in shared}
        return SharedState(structure, shared, alike)

    def write_rest(self, folder: Path) -> tuple[str, str]:
        """Writes what is not shared out into a folder; the names of the files."""
        _write(self.structure, self.alike, folder)
        return TENSORS, STRUCTURE


def read_state(folder: Path, into: TrainerState | None = None, ranks: Ranks = ALONE) -> TrainerState:
    """The state that was written into a folder, its tensors on the CPU.

    Args:
        into: a state of the same kind, into whose tensors shares are read, where there are some; of several ranks it
            says who wants which. None: into new ones, all of them.
        ranks: those that read it together.
    """
    structure = json.loads((folder / STRUCTURE).read_text(encoding="utf-8"))
    tensors = load_file(folder / TENSORS)
    if any(folder.glob(SHARES)):
        from tiltlm.checkpoints.share_files import read_shares

        own = {} if into is None else taken_apart(into.to_dict())[1]
        tensors |= read_shares(folder, own, tensors.keys(), ranks)
    table = put_together(structure, tensors)
    if "model" not in table:
        table["model"] = load_file(folder / WEIGHTS)
    return TrainerState.from_dict(table)


def taken_apart(value: Any, place: str = "") -> tuple[Plain, dict[str, Tensor]]:
    """Nested containers of tensors and plain values as JSON that names the tensors, and the tensors by these names.

    JSON knows neither tuples nor keys that are numbers, so every container says what it is.
    """
    if isinstance(value, Tensor):
        return {"tensor": place}, {place: value}
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
