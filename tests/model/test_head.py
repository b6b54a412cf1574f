"""Chunked log-probabilities equal the textbook's, forward and backward, whatever the chunk."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tiltlm.model import head as head_module
from tiltlm.model.head import LogitTransform, token_logps
from tiltlm.model.memory_peak import Peak
from tiltlm.model.products import product


def textbook(
    hidden: torch.Tensor, tokens: torch.Tensor, head: nn.Linear, transform: LogitTransform, temperature: float
) -> torch.Tensor:
    logits = head(hidden) * transform.scale
    if transform.softcap is not None:
        logits = torch.tanh(logits / transform.softcap) * transform.softcap
    return torch.log_softmax(logits / temperature, dim=-1).gather(-1, tokens[:, None]).squeeze(-1)


@given(
    scored=st.integers(1, 9),
    tile_rows=st.integers(1, 10),
    tile_columns=st.integers(1, 12),
    kept=st.sampled_from([0, 30, 1000]),
    bias=st.booleans(),
    scale=st.sampled_from([1.0, 0.3]),
    softcap=st.sampled_from([None, 2.0]),
    temperature=st.sampled_from([1.0, 0.7]),
)
@settings(deadline=None, max_examples=60)
def test_equals_the_textbook(
    scored: int,
    tile_rows: int,
    tile_columns: int,
    kept: int,
    bias: bool,
    scale: float,
    softcap: float | None,
    temperature: float,
) -> None:
    torch.manual_seed(scored)
    hidden = torch.randn(scored, 6, dtype=torch.float64, requires_grad=True)
    head = nn.Linear(6, 11, bias=bias).double()
    tokens = torch.randint(11, (scored,))
    weights = torch.randn(scored, dtype=torch.float64)
    transform = LogitTransform(scale, softcap)
    inputs = [hidden, *head.parameters()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_module, "TILE_ROWS", tile_rows)
        patch.setattr(head_module, "TILE_ELEMENTS", tile_rows * tile_columns)
        patch.setattr(head_module, "KEPT_ELEMENTS", kept)
        fast = token_logps(hidden, tokens, head, transform, temperature)
        fast_gradients = torch.autograd.grad((fast * weights).sum(), inputs)
    slow = textbook(hidden, tokens, head, transform, temperature)
    slow_gradients = torch.autograd.grad((slow * weights).sum(), inputs)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    for one, other in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_gradcheck() -> None:
    torch.manual_seed(1)
    hidden = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    head = nn.Linear(4, 7).double()
    tokens = torch.randint(7, (5,))

    def function(h: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        module = nn.Linear(4, 7).double()
        object.__setattr__(module, "_parameters", {"weight": w, "bias": b})
        return token_logps(h, tokens, module, LogitTransform(softcap=1.5))

    assert torch.autograd.gradcheck(function, (hidden, head.weight, head.bias))


@pytest.mark.parametrize("bound", [0, 5000, 20_000, None])
def test_what_is_kept_of_logits_is_bounded(bound: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between forward and backward, what autograd holds beyond hidden states is no more than the bound."""
    kept: list[int] = []
    hidden = torch.randn(16, 8, requires_grad=True)
    head = nn.Linear(8, 5000, bias=False)
    monkeypatch.setattr(head_module, "TILE_ELEMENTS", 16 * 300)
    monkeypatch.setattr(head_module, "KEPT_ELEMENTS", 16 * 5000 if bound is None else bound)

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() != head.weight.data_ptr():
            kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        token_logps(hidden, torch.zeros(16, dtype=torch.long), head, LogitTransform())
    tiles = sum(count for count in kept if count > hidden.numel())
    assert tiles == (16 * 5000 if bound is None else bound // (16 * 300) * (16 * 300))
    assert sum(kept) - tiles < 16 * 8 * 4 + 16 * 17


def test_without_gradients_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is alive at once in a pass of the reference is two tiles, each a tenth of the logits."""
    hidden, head = torch.randn(16, 8, requires_grad=True), nn.Linear(8, 5000, bias=False)
    monkeypatch.setattr(head_module, "TILE_ELEMENTS", 16 * 500)
    with torch.no_grad(), Peak() as peak:
        token_logps(hidden, torch.zeros(16, dtype=torch.long), head, LogitTransform())
    assert peak.most < 3 * 4 * 16 * 500


@pytest.mark.parametrize("kept", [0, 10**6])
@pytest.mark.parametrize("nats", [4.0, 12.0, 60.0, 200.0])
def test_gradients_of_tokens_nearly_certain_or_nearly_excluded(
    nats: float, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One less nearly one is taken before anything is rounded, and a token in a tile far below the others is not lost:
    with bfloat16 factors the gradient is right to their rounding."""
    monkeypatch.setattr(head_module, "KEPT_ELEMENTS", kept)
    monkeypatch.setattr(head_module, "TILE_ELEMENTS", 16 * 8)
    torch.manual_seed(0)
    hidden = torch.cat([torch.full((6, 1), nats), torch.randn(6, 15)], dim=1).bfloat16().float().requires_grad_()
    head = nn.Linear(16, 40, bias=False)
    with torch.no_grad():
        head.weight.copy_((0.02 * head.weight).bfloat16())
        head.weight[:, 0] = 0
        head.weight[7, 0] = 1
    tokens = torch.tensor([7, 7, 7, 3, 39, 20])
    wide, wide_hidden = nn.Linear(16, 40, bias=False).double(), hidden.detach().double().requires_grad_()
    wide.load_state_dict(head.state_dict())
    textbook(wide_hidden, tokens, wide, LogitTransform(), 1.0).sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        token_logps(hidden, tokens, head, LogitTransform()).sum().backward()
    for row in range(6):
        assert hidden.grad is not None
        assert wide_hidden.grad is not None
        exact = wide_hidden.grad[row]
        assert (hidden.grad[row] - exact).abs().max() <= 0.02 * exact.abs().max() + 1e-12
    assert head.weight.grad is not None
    assert wide.weight.grad is not None
    difference = (head.weight.grad - wide.weight.grad).abs().max()
    assert difference <= 0.02 * wide.weight.grad.abs().max()


@pytest.mark.parametrize("kept", [0, 10**6])
def test_a_second_backward_pass_gives_the_same(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "KEPT_ELEMENTS", kept)
    hidden, head = torch.randn(6, 8, requires_grad=True), nn.Linear(8, 50)
    logps = token_logps(hidden, torch.arange(6), head, LogitTransform()).sum()
    inputs = [hidden, *head.parameters()]
    once, again = (torch.autograd.grad(logps, inputs, retain_graph=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


def test_frozen_head_gets_no_gradient() -> None:
    hidden = torch.randn(3, 4, requires_grad=True)
    head = nn.Linear(4, 5).requires_grad_(False)
    token_logps(hidden, torch.tensor([0, 1, 2]), head, LogitTransform()).sum().backward()
    assert hidden.grad is not None
    assert head.weight.grad is None


def test_bfloat16_autocast_takes_the_softmax_in_float32() -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(50, 32), nn.Linear(32, 500, bias=False)
    tokens = torch.randint(500, (50,))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logps = token_logps(hidden, tokens, head, LogitTransform())
    assert logps.dtype is torch.float32
    exact = textbook(hidden, tokens, head, LogitTransform(), 1.0)
    assert (logps - exact).abs().max() < 0.02


def test_bfloat16_factors_give_float32_logits() -> None:
    """Logits near 16, where steps of bfloat16 are an eighth: the products are right to float32, also backwards."""
    torch.manual_seed(0)
    hidden = (4 * torch.randn(40, 32)).bfloat16().float().requires_grad_()
    head = nn.Linear(32, 300)
    head.weight.data = head.weight.data.bfloat16().float() * 8
    tokens = torch.randint(300, (40,))
    with torch.autocast("cpu", torch.bfloat16):
        fast = token_logps(hidden, tokens, head, LogitTransform())
    wide = nn.Linear(32, 300).double()
    wide.load_state_dict(head.state_dict())
    slow = textbook(hidden.double(), tokens, wide, LogitTransform(), 1.0)
    torch.testing.assert_close(fast.double(), slow, rtol=0, atol=2e-5)
    rounded = head(hidden).bfloat16().double().log_softmax(-1).gather(-1, tokens[:, None]).squeeze(-1)
    assert (rounded - slow).abs().mean() > 100 * (fast - slow).abs().mean()
    inputs = [hidden, *head.parameters()]
    wide_inputs = [hidden, *wide.parameters()]
    for one, other in zip(
        torch.autograd.grad(fast.sum(), inputs), torch.autograd.grad(slow.sum(), wide_inputs), strict=True
    ):
        torch.testing.assert_close(one.double(), other.double(), rtol=0.02, atol=0.02 * float(other.abs().max()))


def test_the_processors_own_setting_is_as_before_afterwards() -> None:
    setting: Any = torch.backends.mkldnn
    before = setting.matmul.fp32_precision
    product(torch.ones(2, 3), torch.ones(3, 2), torch.bfloat16)
    assert setting.matmul.fp32_precision == before
