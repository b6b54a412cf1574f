"""Attention by blocks is attention under the mask, whatever the trie; and rows are cut so that nothing is missed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.model.attention import sees
from tiltlm.model.block_attention import block_attention
from tiltlm.objectives.interface import CHOSEN
from tiltlm.plan import blocks as blocks_module
from tiltlm.plan.batches import MicroBatch
from tiltlm.plan.blocks import Blocks
from tiltlm.plan.packing import plan
from tiltlm.plan.row_layout import Layout

SIZE = 4


@st.composite
def tries(draw: st.DrawFn) -> list[TokenizedSequence]:
    """Sequences that begin alike by chance, some far longer than a block is allowed to be here."""
    known: list[list[int]] = [[]]
    for _ in range(draw(st.integers(1, 7))):
        stem = draw(st.sampled_from(known))
        stem = stem[: draw(st.integers(0, len(stem)))]
        known.append(stem + draw(st.lists(st.integers(0, 2), min_size=max(0, 2 - len(stem)), max_size=30)))
    return [TokenizedSequence(np.array(ids, dtype=np.int32), 1) for ids in known[1:]]


def laid_out(sequences: list[TokenizedSequence], row: int | None) -> MicroBatch:
    columns = TokenColumns.of([TokenizedExample(str(n), (one,), (CHOSEN,)) for n, one in enumerate(sequences)])
    (batch,) = plan(columns, range(len(columns)), 10_000_000, Layout(row=row, blocks=True)).micro_batches
    return batch


def seen_by_blocks(blocks: Blocks, columns: int) -> np.ndarray:
    """Which column sees which, spelled out."""
    seen = np.zeros((columns, columns), dtype=bool)
    for block in blocks.blocks:
        own = np.arange(block.start, block.end)
        keys = np.arange(block.start - block.before, block.end) if block.keys is None else block.keys.numpy()
        inner = block.mask[:, block.before :].numpy() == 0
        assert not seen[own].any(), "a column is in one block"
        seen[np.ix_(own, keys[: block.before])] = True
        seen[np.ix_(own, keys[block.before :])] = inner
    return seen


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So short that small tries are cut in every way."""
    monkeypatch.setattr(blocks_module, "WHOLE", 7)
    monkeypatch.setattr(blocks_module, "WASTE", 30)


@settings(max_examples=150, deadline=None)
@given(tries(), st.sampled_from([None, 1]))
def test_blocks_see_what_the_mask_lets_see(sequences: list[TokenizedSequence], row: int | None) -> None:
    batch = laid_out(sequences, row)
    assert batch.blocks is not None
    rows, length = batch.tokens_RL.shape
    wanted = np.zeros((rows * length, rows * length), dtype=bool)
    for number, mask in enumerate(sees(batch)[:, 0].numpy()):
        part = slice(number * length, (number + 1) * length)
        wanted[part, part] = mask
    found = seen_by_blocks(batch.blocks, rows * length)
    filled = found.any(1)  # padding sees itself under the mask, and is in no block
    assert (found[filled] == wanted[filled]).all()
    assert (wanted[~filled] == np.eye(rows * length, dtype=bool)[~filled]).all() and filled.sum() == batch.laid_out


def by_mask(query: Tensor, key: Tensor, value: Tensor, batch: MicroBatch, scale: float, window: int | None) -> Tensor:
    group = query.shape[1] // key.shape[1]
    key, value = (own.repeat_interleave(group, 1) for own in (key, value))
    scores = (query @ key.transpose(2, 3) * scale).masked_fill(~sees(batch, window), -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


@settings(max_examples=40, deadline=None)
@given(tries(), st.sampled_from([None, 1]), st.sampled_from([None, 3, 12]), st.sampled_from([(2, 2), (6, 2), (3, 1)]))
def test_values_and_slopes_are_those_under_the_mask(
    sequences: list[TokenizedSequence], row: int | None, window: int | None, heads: tuple[int, int]
) -> None:
    batch = laid_out(sequences, row)
    assert batch.blocks is not None
    rows, length = batch.tokens_RL.shape
    torch.manual_seed(0)
    given_ = [torch.randn(rows, count, length, SIZE, dtype=torch.float64) for count in (heads[0], heads[1], heads[1])]
    used = torch.zeros(rows * length, dtype=torch.bool)
    for block in batch.blocks.blocks:
        used[block.start : block.end] = True
    back = torch.randn(rows, length, heads[0], SIZE, dtype=torch.float64) * used.view(rows, length, 1, 1)
    found: list[Tensor] = []
    wanted: list[Tensor] = []
    for results, blocks in ((found, batch.blocks), (wanted, None)):
        q, k, v = (tensor.clone().requires_grad_() for tensor in given_)
        attended = by_mask(q, k, v, batch, 0.3, window)
        if blocks is not None:
            attended = block_attention(q, k, v, blocks, 0.3, window)
        results += [
            attended.detach() * used.view(rows, length, 1, 1),
            *torch.autograd.grad((attended * back).sum(), (q, k, v)),
        ]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


def test_a_comb_as_deep_as_it_is_long_is_cut_without_end_of_the_stack() -> None:
    comb = [TokenizedSequence(np.array([1] * depth + [2, 2], dtype=np.int32), 1) for depth in range(1, 1500)]
    batch = laid_out(comb, None)
    assert batch.blocks is not None
    assert sum(block.end - block.start for block in batch.blocks.blocks) == batch.laid_out


def test_blocks_of_a_long_text_cost_less_than_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    batch = laid_out([TokenizedSequence(np.arange(2, 2050, dtype=np.int32), 1)], None)
    assert batch.blocks is not None
    computed = sum((b.end - b.start) * (b.before + b.end - b.start) for b in batch.blocks.blocks)
    columns = batch.laid_out
    assert computed <= columns * (columns + blocks_module.WHOLE) / 2
