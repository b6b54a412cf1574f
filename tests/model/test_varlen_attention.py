"""Attention over runs gives what the dense mask gives: alone, and in every architecture that takes trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import SHAREABLE, build, family
from tiny_runs import packed
from torch import Tensor, nn
from torch.nn.attention import varlen as torch_varlen
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tiltlm.errors import ModelError
from tiltlm.model import varlen_attention
from tiltlm.model.attention import OF_TREES, attention_arguments, sees
from tiltlm.model.scorer import Scorer
from tiltlm.model.varlen_attention import run_by_run, varlen, why_no_varlen
from tiltlm.plan.batches import MicroBatch
from tiltlm.plan.row_layout import BLOCKS, RUNS, Layout
from tiltlm.plan.runs import Runs, runs_of


def filled(batch: MicroBatch) -> np.ndarray:
    """How far each row is filled: its padding is trees of one column, with token 0, which no sequence here has."""
    return (batch.tokens_RL != 0).sum(1).numpy()


def runs_in(batch: MicroBatch) -> Runs:
    """The batch's runs, which are those of its rows."""
    runs, own = runs_of(batch.subtree_end_RL.numpy(), filled(batch)), batch.runs
    assert own is not None and torch.equal(own.key_at_K, runs.key_at_K)
    assert torch.equal(own.query_bounds, runs.query_bounds) and torch.equal(own.key_bounds, runs.key_bounds)
    return own


@pytest.fixture(params=[512, 60])
def batch(request: pytest.FixtureRequest) -> MicroBatch:
    """Tries of three completions of which two begin alike: all in one row, and several rows with padding."""
    made = packed(family(prompts=5), Layout(row=request.param, runs=True))
    length = made.tokens_RL.shape[1]
    assert (len(made.tokens_RL) == 1) == (int(filled(made).min()) == length) == (request.param == 512)
    return made


@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (3, 1)])
def test_values_and_gradients_equal_the_dense_mask(
    batch: MicroBatch, window: int | None, heads: int, key_heads: int
) -> None:
    (rows, length), size = batch.tokens_RL.shape, 8
    runs, mask, generator = runs_in(batch), sees(batch, window), torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(rows, of, length, size, dtype=torch.float64, generator=generator)
        for of in (heads, key_heads, key_heads)
    ]
    # What comes of padding is read by no one, so nothing is sent back to it.
    there = (torch.arange(length) < torch.from_numpy(filled(batch))[:, None])[:, None, :, None]
    slopes = torch.randn(rows, heads, length, size, dtype=torch.float64, generator=generator) * there

    def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True)

    def by_runs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (each.transpose(1, 2).flatten(0, 1) for each in (q, k, v))
        return varlen(q, k, v, runs, 0.3, window).view(rows, length, heads, size).transpose(1, 2)

    for found, expected in zip(taken(by_runs, inputs, slopes), taken(dense, inputs, slopes), strict=True):
        shared = there.expand_as(found)
        torch.testing.assert_close(found.where(shared, 0), expected.where(shared, 0), rtol=0, atol=1e-13)
        assert found.isfinite().all()


def taken(attention: Callable[..., Tensor], inputs: list[Tensor], slopes: Tensor) -> list[Tensor]:
    leaves = [each.clone().requires_grad_() for each in inputs]
    made = attention(*leaves)
    made.backward(slopes)
    return [made.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is asked for on every device; on a CPU its arithmetic is done run by run."""
    monkeypatch.setattr(varlen_attention, "why_no_varlen", lambda model, device, dtype: None)


@pytest.mark.parametrize("name", SHAREABLE)
@pytest.mark.usefixtures("everywhere")
def test_models_give_the_same_as_under_the_dense_mask(name: str) -> None:
    model, runs, dense = build(SHAREABLE[name]()), packed(family(), RUNS), packed(family())
    scorer = Scorer(model)

    def both(batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        found = scorer(batch)
        (found * torch.linspace(-1, 1, len(found))).sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        return found.detach(), gradients

    expected, expected_gradients = both(dense)
    assert attention_arguments(model, runs)["runs"] is runs.runs
    found, gradients = both(runs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    assert gradients.keys() == expected_gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected_gradients.values())
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[parameter], rtol=0, atol=1e-8 * largest)


@pytest.mark.usefixtures("everywhere")
def test_under_autocast_it_is_the_arithmetic_of_autocast() -> None:
    """Rotary embedding leaves queries and keys in float32, beside values in bfloat16."""
    batch = packed(family(), RUNS)
    scorer = Scorer(build(SHAREABLE["llama"](), torch.float32))
    exact = scorer(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = scorer(batch)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.3)
    assert not torch.equal(rounded, exact)


def test_where_the_kernel_does_not_serve_a_mask_does() -> None:
    model, batch = build(SHAREABLE["llama"](), torch.float32), packed(family(), RUNS)
    (mask,) = attention_arguments(model, batch).values()
    assert torch.equal(mask, sees(batch))


def test_without_a_tree_it_is_the_attention_of_transformers() -> None:
    model: Any = build(SHAREABLE["llama"](), torch.float32)
    tokens, mask = torch.tensor([[1, 5, 9, 11], [0, 1, 9, 11]]), torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    asked: dict[str, Any] = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 6, "pad_token_id": 0}
    expected = model.generate(tokens, **asked)
    Scorer(model)  # has its layers call ours
    assert model.config._attn_implementation == OF_TREES
    assert torch.equal(model.generate(tokens, **asked), expected)


def test_gradients_of_shared_columns_are_added_in_float32() -> None:
    """2,048 paths that share a column: added one by one in bfloat16 their ones would stop at 256."""
    columns = torch.zeros(2, 1, 8, dtype=torch.bfloat16, requires_grad=True)
    at = torch.zeros(2048, dtype=torch.int64)
    varlen_attention.gathered(columns, at).sum().backward()
    assert columns.grad is not None
    assert columns.grad[0].unique().tolist() == [2048.0] and columns.grad[1].unique().tolist() == [0.0]


def kernel(later: bool) -> Callable[..., Tensor]:
    """`varlen_attn` of a PyTorch that knows grouped heads (2.13) or not (2.11), computed run by run."""

    def attended(
        q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor, most: int, most_keys: int, **given: Any
    ) -> Tensor:
        assert given.pop("enable_gqa", False) == (later and k.shape[1] != q.shape[1])
        assert later or k.shape[1] == q.shape[1]
        assert given.keys() == {"scale", "window_size"}
        left, right = given["window_size"]
        assert right == 0
        of_paths = Runs(queries, keys, torch.empty(0), most, most_keys)
        return run_by_run(q, k, v, of_paths, given["scale"], None if left < 0 else left + 1)

    return attended


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("later", [False, True])
def test_the_kernel_is_asked_for_the_same(later: bool, window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"scale", "window_size"} | ({"enable_gqa"} if later else set())
    monkeypatch.setattr(varlen_attention, "_parameters", lambda: names)
    monkeypatch.setattr(torch_varlen, "varlen_attn", kernel(later))
    batch = packed(family(), RUNS)
    runs, columns = runs_in(batch), batch.tokens_RL.numel()
    q, k, v = torch.randn(columns, 4, 8), torch.randn(columns, 2, 8), torch.randn(columns, 2, 8)
    keys, values = (varlen_attention.gathered(each, runs.key_at_K) for each in (k, v))
    torch.testing.assert_close(
        varlen_attention._kernel(q, keys, values, runs, 0.5, window), varlen(q, k, v, runs, 0.5, window)
    )


def test_the_kernel_of_this_pytorch_takes_these_arguments() -> None:
    """It runs on a GPU alone; its shapes and its gradients can be traced anywhere."""
    batch = packed(family(), RUNS)
    runs, columns = runs_in(batch).each(lambda tensor: tensor.to("meta")), batch.tokens_RL.numel()
    q, k, v = (torch.empty(columns, heads, 8, dtype=torch.bfloat16, device="meta") for heads in (4, 2, 2))
    for each in (q, k, v):
        each.requires_grad_()
    keys, values = (varlen_attention.gathered(each, runs.key_at_K) for each in (k, v))
    made = varlen_attention._kernel(q, keys, values, runs, 0.5, 5)
    made.sum().backward()
    assert made.shape == q.shape
    assert k.grad is not None and k.grad.shape == k.shape and k.grad.dtype is torch.bfloat16


def test_reasons_to_leave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, gpu = build(SHAREABLE["llama"](), torch.float32), torch.device("cuda")
    assert "not on the cpu" in (why_no_varlen(model, torch.device("cpu"), torch.bfloat16) or "")
    assert "not in float32" in (why_no_varlen(model, gpu, torch.float32) or "")
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "no FlashAttention" in (why_no_varlen(model, gpu, torch.bfloat16) or "")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert why_no_varlen(model, gpu, torch.bfloat16) is None
    monkeypatch.setattr(model.config, "head_dim", 12)
    assert "these have 12" in (why_no_varlen(model, gpu, torch.bfloat16) or "")


@pytest.mark.parametrize("layout", [BLOCKS, RUNS])
@pytest.mark.parametrize("given", [{"dropout": 0.1}, {"softcap": 30.0}, {"s_aux": torch.zeros(4)}])
def test_what_attention_over_trees_would_leave_out_is_refused(layout: Layout, given: dict[str, Any]) -> None:
    batch = packed(family(), layout)
    q, mask = torch.randn(1, 4, batch.tokens_RL.shape[1], 8), torch.ones(1, 1, 1, 1)
    with pytest.raises(ModelError, match="would leave out"):
        ALL_ATTENTION_FUNCTIONS[OF_TREES](nn.Module(), q, q, q, mask, blocks=batch.blocks, runs=batch.runs, **given)
