"""The section [adapter]: small matrices that are trained beside a model whose own weights stay as they are."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import Field, Strict

from tiltlm.config.declaring import Positive, PositiveInt, section
from tiltlm.errors import ConfigError

AdapterKind = Literal["none", "lora", "rslora", "dora"]
Quantisation = Literal["none", "nf4", "int8"]
ALL_LINEAR = "all-linear"


@section("adapter")
class AdapterConfig:
    """Adapters (docs/adapters.md): small matrices are trained, and the model itself stays as it is."""

    kind: AdapterKind = "none"
    """`none`: all weights are trained, or the adapter that model.path names. `lora`: a product of two thin matrices is
    added to each layer. `rslora`: the same, divided by the root of the rank, for large ranks. `dora`: with the length
    of each row as a weight of its own."""
    rank: PositiveInt = 16
    """Rank of the matrices that are added."""
    alpha: Positive = 32.0
    """What they are multiplied with, before they are divided by the rank (`rslora`: by its root). It changes what the
    learning rate changes, so it is the same for every rank."""
    targets: Annotated[tuple[str, ...], Strict(False), Field(min_length=1)] = (ALL_LINEAR,)
    """Layers that get one: `all-linear`, which leaves out the output layer, or ends of their names (q_proj v_proj)."""
    quantise: Quantisation = "none"
    """Keep the model itself in fewer bits: `nf4`, 4 bits a weight, twice quantised (QLoRA); `int8`, 8 bits. Needs
    bitsandbytes. The reference is the quantised model: it is what training starts from."""
    base_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type in which the model itself is kept, or what of it is not quantised. `auto`: bfloat16 on a GPU that computes
    in it, if the model's files are; else float32."""

    def require_effect(self) -> None:
        """Refuses what has no effect beside the rest.

        Raises:
            ConfigError: naming the option and who reads it.
        """
        if self.kind != "none":
            if ALL_LINEAR in self.targets and len(self.targets) > 1:
                raise ConfigError(
                    f"adapter.targets: beside `{ALL_LINEAR}`, the names {', '.join(sorted(set(self.targets)))} have no "
                    "effect: leave one or the other out."
                )
            return
        for option in dataclasses.fields(self):
            if option.name not in _OF_THE_BASE and getattr(self, option.name) != option.default:
                raise ConfigError(
                    f"adapter.{option.name} has no effect without a new adapter: choose adapter.kind (lora, rslora, "
                    "dora), or remove it."
                )

    @property
    def keeps_base(self) -> bool:
        """Whether something is said of how the model itself is kept, which asks for an adapter."""
        return self.quantise != "none" or self.base_dtype != "auto"


_OF_THE_BASE = ("kind", "quantise", "base_dtype")
"""Options that have an effect beside `kind = "none"` too, where model.path names an adapter."""
