"""How the model is kept that an adapter is trained on, by what the settings and the files say."""

from __future__ import annotations

import dataclasses

import torch

from tiltlm.config import AdapterConfig
from tiltlm.errors import ConfigError
from tiltlm.model.finding import ModelSource, facts_of_adapter
from tiltlm.model.frozen import Base


def choose_base(
    settings: AdapterConfig,
    source: ModelSource,
    device: torch.device,
    precision: torch.dtype,
    stored: torch.dtype | None,
) -> Base | None:
    """How the model is kept that an adapter is trained on; None where all weights are trained.

    Raises:
        ConfigError: the settings speak of an adapter that is not there, or of another than model.path names.
    """
    facts = facts_of_adapter(source)
    if settings.kind == "none" and facts is None:
        if settings.keeps_base:
            option = "quantise" if settings.quantise != "none" else "base_dtype"
            raise ConfigError(
                f"adapter.{option} has no effect without an adapter: all weights are trained, and are float32. Choose "
                "adapter.kind (lora, rslora, dora), or remove it."
            )
        return None
    if facts is not None and settings.kind != "none":
        own = {"kind": facts.kind, "rank": facts.rank, "alpha": facts.alpha, "targets": None}
        for declared in dataclasses.fields(settings):
            value = getattr(settings, declared.name)
            if declared.name in own and value not in (declared.default, own[declared.name]):
                has = f" ({own[declared.name]})" if own[declared.name] is not None else ""
                raise ConfigError(
                    f"adapter.{declared.name} is {value!r}, but model.path is an adapter with its own{has}, which is "
                    "gone on with: remove it; or merge that adapter first, and train a new one on what comes of it."
                )
    if settings.kind == "dora" and settings.quantise == "int8":
        raise ConfigError(
            "adapter.kind dora needs the lengths of the rows that int8 quantises, and peft moves those weights when it "
            "takes them: take adapter.quantise nf4, or adapter.kind lora or rslora."
        )
    dtype = torch.float32 if settings.base_dtype == "auto" else getattr(torch, settings.base_dtype)
    lossless = stored is torch.bfloat16 or settings.quantise != "none"
    if settings.base_dtype == "auto" and device.type == "cuda" and precision is torch.bfloat16 and lossless:
        dtype = torch.bfloat16
    return Base(settings.quantise, dtype)
