"""A step asks its device for nothing before all was asked of it: no value, no shape that a value decides.

There need be no GPU: tensors on `meta` have shapes and no values, so that whatever needs one (`item`, `bool`,
`nonzero`, an index by a mask, a copy to the host) raises an error; and what is copied to the device is watched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import SHAREABLE, build
from tiny_runs import at_work, bound, examples_for
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tiltlm.model.scorer import Scorer
from tiltlm.model.token_values import TokenValues
from tiltlm.objectives import OBJECTIVES
from tiltlm.plan.row_layout import DENSE
from tiltlm.training.losses import Losses, backward, evaluated
from tiltlm.training.metrics import Sums
from tiltlm.training.step_plans import Referenced

DEVICE = torch.device("meta")


class Copies(TorchDispatchMode):
    """Names the copies between devices for which the host waits."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waited: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            source = [each for each in args if isinstance(each, Tensor)][-1]
            waits = not ((kwargs or {}).get("non_blocking") or args[2:] == (True,))
            if made.device != source.device and waits:
                self.waited.append(f"{func}: {source.device} to {made.device}, {tuple(source.shape)}")
        return made


@pytest.fixture(autouse=True)
def autocast_for_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast knows no `meta`: it is asked of the CPU instead, which changes no shape."""
    real, asked = torch.autocast, torch.is_autocast_enabled

    def known(device: str) -> str:
        return "cpu" if device == DEVICE.type else device

    monkeypatch.setattr(torch, "autocast", lambda device, *given, **more: real(known(device), *given, **more))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: asked(known(device)))


WAITING = {"kto", "tr_kto"}
"""They take the labelled answers out of all, so that a device is asked how many those are."""


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - WAITING))
def test_no_loss_waits(name: str) -> None:
    objective = bound(name)
    columns, needs = examples_for(objective.needs, 3), objective.needs
    planned = Referenced(columns, np.zeros(int(columns.scored_starts[-1]), np.float32)).plan(range(3), 256, DENSE)
    (batch,) = planned.micro_batches
    logps_S, other_S = (torch.zeros(len(batch.places), device=DEVICE, requires_grad=True) for _ in range(2))
    values = TokenValues(logps_S, other_S.detach() if needs.squares else None, other_S if needs.live else None)
    sums = Sums(needs.unit)
    with Copies() as copies:
        scored = objective.moved(objective.scored([batch.to(DEVICE)], [values], planned))
        losses = Losses(scored, objective(scored))
        losses.output.losses_U.sum().backward()
        sums.add(losses)
        finite = sums.finite()
    assert logps_S.grad is not None and finite.device == DEVICE
    assert not copies.waited


@pytest.mark.parametrize("name", ["sigmoid", "wpo", "bco", "tdpo2"])
def test_no_step_waits(name: str) -> None:
    """A plain one, one with more of each token, one of two passes over the batch, one with a reference at work."""
    objective = bound(name)
    columns, config = examples_for(objective.needs, 5), SHAREABLE["llama"]()
    config.num_hidden_layers = 1
    model: Any = build(config, torch.float32)
    scorer = Scorer(model.to(DEVICE))
    examples = Referenced(columns, np.zeros(int(columns.scored_starts[-1]), np.float32))
    objective, planned = at_work(objective, scorer), examples.plan(range(5), 40, scorer.layout)
    assert len(planned.micro_batches) > 1
    sums = Sums(objective.needs.unit)
    with Copies() as copies:
        backward(scorer, planned, objective, torch.float32, sums.add)
        norm = torch.nn.utils.clip_grad_norm_(scorer.trained().values(), 1.0)
        for losses in evaluated(scorer, planned, objective, torch.float32):
            sums.add(losses)
    assert norm.device == DEVICE
    assert not copies.waited


def test_waiting_would_be_seen() -> None:
    """Each of these waits for a GPU, and none of them goes unseen here."""
    values = torch.ones(3, device=DEVICE)
    with pytest.raises(RuntimeError):
        values.sum().item()
    with pytest.raises(RuntimeError):
        bool(values.any())
    with pytest.raises(NotImplementedError):
        values.cpu()
    with pytest.raises(NotImplementedError):
        values[values > 0]
    with pytest.raises(NotImplementedError):
        values.nonzero()
    with Copies() as copies:
        torch.tensor(1.0).to(DEVICE)
        torch.zeros(3, device=DEVICE).copy_(torch.ones(3))
        torch.ones(3).to(DEVICE, non_blocking=True)
    assert [line.partition(":")[0] for line in copies.waited] == ["aten._to_copy.default", "aten.copy_.default"]
