"""Adapters by peft: put on a model, trained on, written in peft's own form, and merged into plain weights."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tiltlm.config import AdapterConfig
from tiltlm.demo.packages import ADAPTERS, QUANTISED, require
from tiltlm.errors import ConfigError, ModelError
from tiltlm.model.adapter_files import ADAPTER, ADAPTER_WEIGHTS, adapter_facts
from tiltlm.model.adapter_of_peft import NAME, Adapter, without_remarks
from tiltlm.model.finding import ModelSource, explained
from tiltlm.model.frozen import Base, dequantise, freeze
from tiltlm.model.pages import model_of_pages
from tiltlm.model.scorer import Scorer
from tiltlm.model.weights import load_model

if TYPE_CHECKING:
    from peft import LoraConfig

Note = Callable[[str], None]


def load_scorer(
    source: ModelSource, device: torch.device, base: Base | None = None, note: Note = lambda sentence: None
) -> Scorer:
    """The model of a source, and where that is an adapter, the model with it.

    Args:
        base: how the model is kept that an adapter is trained on; None: all weights are to be trained.
        note: see `load_model`.

    Raises:
        ModelError: one of them cannot be had, or they do not belong together.
        PackageError: what an adapter needs is not installed.
    """
    if base is None and source.adapter is None:
        return Scorer(load_model(source, device, note))
    kept = base or Base()
    require_packages(kept)
    _import_peft()
    with without_remarks():
        # Narrowed before it is moved: a GPU need not hold all of it in float32.
        place = device if kept.quantise != "none" else torch.device("cpu")
        model = load_model(source, place, note, kept.quantise)
    freeze(model, kept)
    if kept.quantise == "none":
        torch.nn.Module.to(model, device)
    return _with_own_adapter(model, source)


def load_pages(source: ModelSource, base: Base | None, note: Note = lambda sentence: None) -> Scorer:
    """The model of a source as pages of its files (`model.pages`), with its adapter.

    Args:
        base: as in `load_scorer`, and not quantised. What is kept in another type than the files have is in memory.

    Raises:
        ModelError, PackageError: as `load_scorer`.
    """
    if base is None and source.adapter is None:
        return Scorer(model_of_pages(source, note))
    kept = base or Base()
    require_packages(kept)
    _import_peft()
    model = model_of_pages(source, note)
    if kept.dtype is torch.float32:
        model.float()
    freeze(model, kept)
    return _with_own_adapter(model, source)


def _with_own_adapter(model: PreTrainedModel, source: ModelSource) -> Scorer:
    return Scorer(model) if source.adapter is None else with_adapter_of(model, source.adapter)


def require_packages(base: Base) -> None:
    """Raises PackageError where one is not installed that such a base, or an adapter, needs."""
    require(ADAPTERS, "an adapter", "adapters")
    if base.quantise != "none":
        require(QUANTISED, f"adapter.quantise {base.quantise}", "adapters")


def new_adapter(scorer: Scorer, settings: AdapterConfig, seed: int) -> Scorer:
    """A frozen model with an adapter that changes nothing yet.

    seed: of its first matrices, which are random while the second are zero (arXiv 2106.09685, section 4.1).

    Raises:
        ConfigError: its targets are no layers of this model, or layers that cannot be merged.
    """
    require_targets(scorer.model, settings)
    _import_peft()
    from peft import LoraConfig

    whole = settings.targets == ("all-linear",)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        # peft writes what it is given; others read whole numbers.
        lora_alpha=int(settings.alpha) if settings.alpha.is_integer() else settings.alpha,  # type: ignore[arg-type]
        target_modules="all-linear" if whole else list(settings.targets),
        use_rslora=settings.kind == "rslora",
        use_dora=settings.kind == "dora",
        lora_dropout=0.0,
        fan_in_fan_out=_transposed(scorer.model),
    )
    return Scorer(*_put_on(scorer.model, config, seed))


def require_targets(model: PreTrainedModel, settings: AdapterConfig) -> None:
    """Raises ConfigError where a name is no layer's: peft leaves it out in silence unless it is the only one."""
    head = model.get_output_embeddings()
    for target in settings.targets:
        if target == "all-linear" or any(f".{name}".endswith(f".{target}") for name, _ in model.named_modules()):
            continue
        layers = {
            name.rpartition(".")[2]: None
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and module is not head
        }
        near = difflib.get_close_matches(target, layers, n=1)
        raise ConfigError(
            f"adapter.targets: no layer of a {type(model).__name__} is called `{target}`."
            f"{f' Did you mean `{near[0]}`?' if near else ''} Its layers are {', '.join(layers)}."
        )


def with_adapter_of(model: PreTrainedModel, files: ModelSource) -> Scorer:
    """A frozen model with the adapter of some files.

    Raises:
        ModelError: it is damaged, or another model's.
    """
    from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict

    path, weights = files.file(ADAPTER), files.file(ADAPTER_WEIGHTS)
    if path is None or weights is None:
        raise ModelError(
            f"the adapter in `{files.location}` has no {ADAPTER_WEIGHTS if path else ADAPTER}: an adapter is read from "
            "safetensors alone. Save it again with peft's save_pretrained."
        )
    with explained(files, "adapter"):
        facts = adapter_facts(files.location, json.loads(path.read_text(encoding="utf-8")))
        tensors = load_file(weights)
        config = LoraConfig.from_pretrained(str(path.parent))
    config.inference_mode, config.lora_dropout, config.init_lora_weights = False, 0.0, True
    config.fan_in_fan_out = _transposed(model)
    if broken := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise ModelError(f"the adapter in `{files.location}` is broken: {broken[0]} holds NaN or infinite values.")
    try:
        inner, adapter = _put_on(model, config, 0)
        own = get_peft_model_state_dict(adapter.peft, save_embedding_layers=False)
        shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
        given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if shapes != given:
            raise ModelError(_of_another_model(files, facts.base, shapes, given))
        set_peft_model_state_dict(adapter.peft, tensors)
    except (ConfigError, ValueError) as error:
        raise ModelError(f"the adapter in `{files.location}` does not fit the model `{facts.base}`: {error}") from error
    return Scorer(inner, adapter)


def merged(scorer: Scorer) -> PreTrainedModel:
    """The model that a frozen model and its adapter come to, as ordinary float32 weights: unpacked first, then added.

    The scorer is of no use afterwards.
    """
    assert scorer.adapter is not None
    peft: Any = scorer.adapter.peft
    tensors = _state(scorer)
    with without_remarks():
        base: PreTrainedModel = peft.unload()
    config = peft.peft_config[NAME]
    dequantise(base)
    _, adapter = _put_on(base, dataclasses.replace(config, fan_in_fan_out=_transposed(base)), 0)
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(adapter.peft, tensors)
    merging: Any = adapter.peft
    with without_remarks():
        whole: PreTrainedModel = merging.merge_and_unload()
    if hasattr(whole, "peft_config"):
        del whole.peft_config
    return whole


def _state(scorer: Scorer) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    assert scorer.adapter is not None
    own = get_peft_model_state_dict(scorer.adapter.peft, save_embedding_layers=False)
    return {name: tensor.detach().clone() for name, tensor in own.items()}


def _put_on(model: PreTrainedModel, config: LoraConfig, seed: int) -> tuple[PreTrainedModel, Adapter]:
    from peft import get_peft_model

    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), without_remarks():
        torch.manual_seed(seed)
        try:
            # peft casts its matrices to the type of the weights beside them, then those of narrow types to float32.
            peft: Any = get_peft_model(model, config, adapter_name=NAME)
        except ValueError as error:
            raise ConfigError(f"adapter.targets cannot be had in a {type(model).__name__}: {error}") from error
    peft.eval()
    inner: PreTrainedModel = peft.get_base_model()
    _require_mergeable(inner)
    return inner, Adapter(peft)


def _require_mergeable(model: PreTrainedModel) -> None:
    """Refuses adapters on embeddings and on the output layer.

    Where the two are one matrix, merging an adapter of one would change the other; and the scorer multiplies with the
    output layer's weight itself.
    """
    from peft.tuners.lora import Embedding, LoraLayer

    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, Embedding) or (isinstance(module, LoraLayer) and module is head):
            which = "the output layer" if module is head else "embeddings"
            raise ConfigError(
                f"adapter.targets: {name} is {which}, which an adapter is not put on: where output layer and "
                "embeddings are one matrix, merging would corrupt the model. Leave it out (all-linear does)."
            )


def _transposed(model: PreTrainedModel) -> bool:
    """Whether weights stand with their inputs first, as in GPT-2."""
    return any(isinstance(module, Conv1D) for module in model.modules())


def _of_another_model(files: ModelSource, base: str, own: dict[str, Any], given: dict[str, Any]) -> str:
    name = next(name for name in [*given, *own] if own.get(name) != given.get(name))
    shown = {True: "is not there", False: "has the shape {}"}
    there, here = (shown[of.get(name) is None].format(of.get(name)) for of in (given, own))
    return (
        f"the adapter in `{files.location}` is not one of the model `{base}`: {name} {there} in its files, and {here} "
        f"in the model. Name its model in {ADAPTER} (base_model_name_or_path)."
    )


def _import_peft() -> None:
    """The first import of it is not silent: it imports bitsandbytes, where that is installed."""
    with without_remarks():
        importlib.import_module("peft")


def trained_parameters(module: nn.Module) -> int:
    """How many parameters are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def all_parameters(module: nn.Module) -> int:
    """How many parameters there are, those of packed layers unpacked."""
    shapes = [getattr(getattr(own, "quant_state", None), "shape", own.shape) for own in module.parameters()]
    return sum(math.prod(shape) for shape in shapes)
