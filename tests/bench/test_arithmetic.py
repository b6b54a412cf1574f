"""The useful arithmetic of a step, against counting by hand and by PyTorch's own counter."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import SHAREABLE, UNSHAREABLE, build
from tiny_runs import sequence
from torch.utils.flop_counter import FlopCounterMode
from transformers import MixtralConfig

from tiltlm.bench.arithmetic import ForwardCost, forward_cost, step_work
from tiltlm.bench.matrix_peak import SIZES, matrix_peak
from tiltlm.bench.speed_record import StepWork
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample
from tiltlm.model.scorer import Scorer

tokens = st.lists(st.integers(3, 5), min_size=1, max_size=5)


@st.composite
def pairs(draw: st.DrawFn) -> TokenColumns:
    """Pairs of few prompts over three tokens, so that much is shared, within pairs and between them."""
    prompts = draw(st.lists(tokens, min_size=1, max_size=2))
    made = []
    for number in range(draw(st.integers(1, 4))):
        prompt = draw(st.sampled_from(prompts))
        chosen, rejected = (sequence([*prompt, *draw(tokens)], len(prompt)) for _ in range(2))
        made.append(TokenizedExample.pair(str(number), chosen, rejected))
    return TokenColumns.of(made)


@settings(max_examples=60, deadline=None)
@given(pairs(), st.sampled_from([1, 2, 3, 100]))
def test_a_step_is_counted_token_by_token(columns: TokenColumns, window: int) -> None:
    cost = ForwardCost(token=1000.0, scored=7.0, seen={None: 0.5, window: 0.25})
    work = step_work(cost, columns, range(len(columns)))
    counted, operations = set[tuple[int, ...]](), 0.0
    for number in range(columns.sequences):
        ids = columns.sequence(number).ids.tolist()
        for length in range(1, len(ids)):  # nothing is predicted from the last token
            if (prefix := tuple(ids[:length])) not in counted:
                counted.add(prefix)
                operations += 1000
                for seen in range(length):
                    operations += 0.5 + (0.25 if length - 1 - seen < window else 0)
        operations += 7 * columns.sequence(number).scored_tokens
    assert work.columns == len(counted)
    assert work.forward == pytest.approx(operations)
    halves = [[len(side.ids) for side in half] for half in zip(*((p.chosen, p.rejected) for p in columns), strict=True)]
    assert work.padded == sum(len(half) * max(half) for half in halves)
    assert work.scored == sum(pair.chosen.scored_tokens + pair.rejected.scored_tokens for pair in columns)


def test_only_the_steps_own_pairs_are_counted() -> None:
    chosen, rejected = sequence([3, 4, 5], 1), sequence([3, 4, 6, 7], 1)
    columns = TokenColumns.of([TokenizedExample.pair(str(n), chosen, rejected) for n in range(3)])
    cost = ForwardCost(1.0, 0.0, {})
    assert step_work(cost, columns, [0]) == StepWork(columns=3, scored=5, padded=7, forward=3.0)
    assert step_work(None, columns, [0]).forward is None


@pytest.mark.parametrize("name", SHAREABLE)
def test_the_layers_cost_what_pytorch_counts(name: str) -> None:
    """Of one sequence, without the products within attention, which is masked in PyTorch's count and not in ours."""
    model = build(SHAREABLE[name](), torch.float32)
    cost = forward_cost(model)
    assert cost is not None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.arange(3, 12)[None], use_cache=False)
    linear = {
        operation: count for operation, count in counter.get_flop_counts()["Global"].items() if "mm" in str(operation)
    }
    by_batches = sum(count for operation, count in linear.items() if "bmm" in str(operation))
    assert 9 * (cost.token + cost.scored) == sum(linear.values()) - by_batches
    layers = model.config.num_hidden_layers
    heads, width = model.config.num_attention_heads, model.config.get_text_config().hidden_size
    head_dim = getattr(model.config, "head_dim", None) or width // heads
    assert sum(cost.seen.values()) == layers * 4 * heads * head_dim


def test_windows_are_those_of_the_layers() -> None:
    def windows(name: str) -> set[int | None]:
        cost = forward_cost(build(SHAREABLE[name]()))
        assert cost is not None
        return set(cost.seen)

    assert windows("llama") == {None}
    assert windows("mistral, sliding window") == {5}
    assert windows("gemma3, sliding and full layers, soft-capped logits") == {None, 5}


@pytest.mark.parametrize("name", UNSHAREABLE)
def test_what_is_not_sure_is_not_told(name: str) -> None:
    assert forward_cost(Scorer(build(UNSHAREABLE[name][0]())).model) is None


def test_experts_are_not_guessed() -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = MixtralConfig(vocab_size=64, num_key_value_heads=2, num_local_experts=2, **sizes)
    assert forward_cost(build(config)) is None


def test_the_peak_is_that_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many operations as the size says, in the time that the clock says."""
    monkeypatch.setitem(SIZES, "cpu", (8, 16))
    clock = iter(np.arange(0, 10_000, 0.25))
    monkeypatch.setattr("tiltlm.bench.matrix_peak.time.perf_counter", lambda: float(next(clock)))
    # A burst takes 0.25 s by this clock, and is thus of one product.
    assert matrix_peak(torch.device("cpu"), torch.float32) == 2 * 16**3 / 0.25
    assert all(a < b for sizes in SIZES.values() for a, b in pairwise(sizes))
