"""What tests have ranks do with models that are shared out from their files on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_folders import change_weights
from torch import nn

from tiltlm.cli import main
from tiltlm.config import AdapterConfig, DistributedConfig
from tiltlm.distributed.ranks import Ranks
from tiltlm.distributed.shares import own_part, whole, with_part
from tiltlm.model.adapters import load_pages, load_scorer, new_adapter
from tiltlm.model.dither import add_dither, remove_dither
from tiltlm.model.finding import ModelSource
from tiltlm.model.frozen import Base
from tiltlm.model.fused_layers import use_stock_layers
from tiltlm.model.pages import into_shares
from tiltlm.model.reference import fingerprint
from tiltlm.model.saving import rounded
from tiltlm.model.scorer import Scorer

CPU = torch.device("cpu")
Numbers = dict[str, np.ndarray]


@dataclass(frozen=True)
class Held:
    """A model's numbers by name, how many layers are computed by functions of ours, what is trained, its address, and
    how many numbers this rank has."""

    weights: Numbers
    buffers: Numbers
    fused: int
    trained: list[str]
    fingerprint: str
    own: int


def held(ranks: Ranks, scorer: Scorer) -> Held:
    return Held(
        {name: _numbers(whole(own.detach())) for name, own in scorer.model.named_parameters()},
        {name: _numbers(own) for name, own in scorer.model.named_buffers()},
        len(use_stock_layers(scorer.model)),
        list(scorer.trained()),
        fingerprint(scorer.model, ranks),
        sum(own_part(own)[0].numel() for own in scorer.parameters()),
    )


def _numbers(tensor: torch.Tensor) -> np.ndarray:
    own = tensor.cpu()
    found: np.ndarray = (own.view(torch.int16) if own.dtype is torch.bfloat16 else own).numpy().copy()
    return found


def source(folder: Path) -> ModelSource:
    return ModelSource(str(folder), True, False)


@dataclass(frozen=True)
class Wanted:
    """A model's folder, and how it is kept where an adapter is trained on it."""

    folder: Path
    base: Base | None = None
    shard: int = 0
    adapter: str = "none"


def shared(ranks: Ranks, wanted: Wanted) -> Scorer:
    pages = load_pages(source(wanted.folder), wanted.base)
    if wanted.adapter != "none":
        pages = new_adapter(pages, AdapterConfig(kind=wanted.adapter, rank=2), 0)  # type: ignore[arg-type]
    return into_shares(pages, wanted.base, DistributedConfig(shard=wanted.shard), ranks, CPU)


def all_held(ranks: Ranks, cases: Sequence[Wanted]) -> list[Held]:
    return [held(ranks, shared(ranks, case)) for case in cases]


def held_alone(wanted: Wanted) -> Held:
    scorer = load_scorer(source(wanted.folder), CPU, wanted.base)
    if wanted.adapter != "none":
        scorer = new_adapter(scorer, AdapterConfig(kind=wanted.adapter, rank=2), 0)  # type: ignore[arg-type]
    return held(Ranks(), scorer)


def dithered_and_rounded(ranks: Ranks, wanted: Wanted) -> list[Numbers]:
    """A model's weights dithered, without dither again, and as files of two types hold them."""
    scorer = shared(ranks, wanted) if ranks.several else load_scorer(source(wanted.folder), CPU)
    found = []
    for change in (add_dither, remove_dither):
        change(scorer.model)
        found.append({name: _numbers(whole(own.detach())) for name, own in scorer.model.named_parameters()})
    return found + [_as_in_files(scorer.model, dtype) for dtype in (torch.bfloat16, torch.float16)]


def _as_in_files(model: nn.Module, dtype: torch.dtype) -> Numbers:
    found = {}
    for name, own in model.named_parameters():
        part, first = own_part(own.detach())
        found[name] = _numbers(whole(with_part(own.detach(), rounded(part.clone(), name, dtype, first))))
    return found


def run(ranks: Ranks, folder: Path, words: Sequence[str], in_step: bool = False) -> int:
    """`tiltlm train` in a folder, in this process. in_step: no rank has room for a whole model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TILTLM_CACHE", str(folder / f"cache-{ranks.count}"))
        if in_step:
            patch.setattr("tiltlm.pipeline.assess.fits_whole", lambda setup, model, count: False)
        return main(["train", *words])


def comparison_of(run: Path) -> Any:
    """The answers of a run's record, without log-probabilities, and these."""
    record = json.loads((run / "comparison.json").read_text())
    logps: list[float] = []

    def without(value: Any) -> Any:
        if isinstance(value, float):
            logps.append(value)
            return None
        if isinstance(value, dict):
            return {name: without(own) for name, own in value.items()}
        return [without(own) for own in value] if isinstance(value, list) else value

    return without(record), logps


def change_all(folder: Path) -> None:
    """Makes another model of the same kind."""
    change_weights(folder, lambda weights: {n: own + 0.01 * torch.randn_like(own) for n, own in weights.items()})
