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
    bias=st.booleans(),
    scale=st.sampled_from([1.0, 0.3]),
    softcap=st.sampled_from([None, 2.0]),
    temperature=st.sampled_from([1.0, 0.7]),
)
@settings(deadline=None, max_examples=60)
def test_equals_the_textbook(
    scored: int, tile_rows: int, tile_columns: int, bias: bool, scale: float, softcap: float | None, temperature: float
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


def test_no_logits_are_kept() -> None:
    """Between forward and backward, what autograd holds does not grow with the vocabulary."""
    kept: list[int] = []
    hidden = torch.randn(16, 8, requires_grad=True)
    head = nn.Linear(8, 5000, bias=False)

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() != head.weight.data_ptr():
            kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        token_logps(hidden, torch.zeros(16, dtype=torch.long), head, LogitTransform())
    assert kept
    assert sum(kept) < 16 * 8 * 3


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
    head_module.product(torch.ones(2, 3), torch.ones(3, 2), torch.bfloat16)
    assert setting.matmul.fp32_precision == before
