"""Whether a model's weights are whole, in their places and finite: looked at before any work, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tiltlm.errors import ModelError
from tiltlm.model.finding import ModelSource, explained
from tiltlm.model.weight_files import safe_files
from tiltlm.model.weights import load_model

Shape = tuple[int, ...]


def require_sound(source: ModelSource, see: Callable[[str, Tensor], None] = lambda name, tensor: None) -> None:
    """Refuses a model that could not be trained for its weights.

    Files are read once, which is what loading them takes anyway. Only where names and shapes are not just those of the
    model, as in files of older versions, or the weights are pickled, the model is loaded to see.

    see: is given every weight of the files.

    Raises:
        ModelError: weights are missing, cut short, of another shape, or not finite.
    """
    shapes: dict[str, Shape] = {}
    with explained(source, "weights"):
        files = safe_files(source)
        for name, tensor in _tensors(files or []):
            _require_trainable(source, name, tensor)
            see(name, tensor)
            shapes[name] = tuple(tensor.shape)
    if files is None or not _are_those_of_the_model(source, shapes):
        for name, parameter in load_model(source, torch.device("cpu")).named_parameters():
            _require_trainable(source, name, parameter.detach())


def _tensors(files: list[Path]) -> Iterator[tuple[str, Tensor]]:
    for path in files:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                yield name, file.get_tensor(name)


def _require_trainable(source: ModelSource, name: str, tensor: Tensor) -> None:
    if name.endswith(".weight") and (tensor.element_size() == 1 or not tensor.is_floating_point()):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ModelError(
            f"the weights of `{source.location}` are quantised: {name} is of the type {kind}, and training needs them "
            "unquantised: name the model that these were made from."
        )
    if not tensor.is_floating_point() or not tensor.numel():
        return
    least, most = torch.aminmax(tensor)  # what is NaN anywhere is NaN here
    if not (torch.isfinite(least) and torch.isfinite(most)):
        count = int(torch.count_nonzero(~torch.isfinite(tensor)))
        raise ModelError(
            f"the weights of `{source.location}` are broken: {count} of the {tensor.numel():,} values of {name} "
            f"{'is' if count == 1 else 'are'} NaN or infinite. A training that diverged leaves such weights: name an "
            "earlier checkpoint, or download the model again."
        )


def _are_those_of_the_model(source: ModelSource, shapes: dict[str, Shape]) -> bool:
    """Whether these are the names and shapes that the configuration tells, but for weights that are tied."""
    model = without_weights(source)
    if model is None:
        return False
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters(remove_duplicate=False)}
    return all(shapes.get(name, shape if name in tied else None) == shape for name, shape in wanted.items())


def without_weights(source: ModelSource) -> PreTrainedModel | None:
    """The model that the configuration tells, of tensors that have shapes alone; None where its code is its own."""
    with explained(source, "model"):
        config = AutoConfig.from_pretrained(
            source.location,
            local_files_only=source.local_files_only,
            trust_remote_code=source.trust_remote_code,
        )
    if getattr(config, "auto_map", None):
        return None
    with explained(source, "model"), torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model
