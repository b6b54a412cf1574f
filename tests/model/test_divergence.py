"""Divergences of whole distributions and sums of squares equal the textbook's, forward and backward, in any chunks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_head import textbook
from tiny_models import SHAREABLE, build
from tiny_runs import moved, packed, sequence, tiny_model
from torch import Tensor, nn

from tiltlm.model import head as head_module
from tiltlm.model.divergence import ReferenceStates, logps_and_divergence
from tiltlm.model.head import LogitTransform, token_logps, token_logps_and_squares
from tiltlm.model.scorer import Asked, Scorer
from tiltlm.plan.row_layout import BLOCKS, DENSE, SEQUENCES, Layout
from tiltlm.training.derivatives import finite_differences

ROWS = 11


def distributions(hidden: Tensor, head: nn.Linear, transform: LogitTransform, temperature: float = 1.0) -> Tensor:
    """The textbook's log-probabilities of all tokens."""
    every = [
        textbook(hidden, torch.full((len(hidden),), v), head, transform, temperature) for v in range(head.out_features)
    ]
    return torch.stack(every, dim=1)


@given(
    scored=st.integers(1, 9),
    chunk_rows=st.integers(1, 10),
    bias=st.booleans(),
    scale=st.sampled_from([1.0, 0.3]),
    softcap=st.sampled_from([None, 2.0]),
)
@settings(deadline=None, max_examples=60)
def test_divergences_equal_the_textbooks(
    scored: int, chunk_rows: int, bias: bool, scale: float, softcap: float | None
) -> None:
    """The reference may be of another width, and do something else to its logits."""
    torch.manual_seed(scored)
    hidden = torch.randn(scored, 6, dtype=torch.float64, requires_grad=True)
    other_hidden = torch.randn(scored, 4, dtype=torch.float64)
    head, other = nn.Linear(6, ROWS, bias=bias).double(), nn.Linear(4, ROWS, bias=not bias).double()
    tokens = torch.randint(ROWS, (scored,))
    weights = torch.randn(2, scored, dtype=torch.float64)
    transform = LogitTransform(scale, softcap)
    reference = ReferenceStates(other_hidden, other, LogitTransform(0.7))
    inputs = [hidden, *head.parameters()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_module, "CHUNK_ELEMENTS", chunk_rows * 2 * ROWS)
        logps, divergence, others = logps_and_divergence(hidden, tokens, head, transform, reference)
        fast = torch.autograd.grad((weights * torch.stack([logps, divergence])).sum(), inputs)
    policy = distributions(hidden, head, transform)
    known = distributions(other_hidden, other, LogitTransform(0.7)).detach()
    slow_logps = policy.gather(-1, tokens[:, None]).squeeze(-1)
    slow_divergence = (known.exp() * (known - policy)).sum(-1)
    for one, wanted in (
        (logps, slow_logps),
        (divergence, slow_divergence),
        (others, known.gather(-1, tokens[:, None]).squeeze(-1)),
    ):
        torch.testing.assert_close(one, wanted, rtol=0, atol=1e-12)
    assert not others.requires_grad
    slow = torch.autograd.grad((weights * torch.stack([slow_logps, slow_divergence])).sum(), inputs)
    for one, wanted in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, wanted, rtol=0, atol=1e-12)


@given(scored=st.integers(1, 9), chunk_rows=st.integers(1, 10), softcap=st.sampled_from([None, 2.0]))
@settings(deadline=None, max_examples=40)
def test_squares_equal_the_textbooks_and_change_no_bit_of_the_rest(
    scored: int, chunk_rows: int, softcap: float | None
) -> None:
    torch.manual_seed(scored)
    hidden = torch.randn(scored, 6, dtype=torch.float64, requires_grad=True)
    head, transform = nn.Linear(6, ROWS).double(), LogitTransform(0.5, softcap)
    tokens = torch.randint(ROWS, (scored,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_module, "TILE_ELEMENTS", chunk_rows * ROWS // 2)
        logps, squares = token_logps_and_squares(hidden, tokens, head, transform)
        plain = token_logps(hidden, tokens, head, transform)
        assert torch.equal(logps, plain)
        inputs = [hidden, *head.parameters()]
        for one, other in zip(
            torch.autograd.grad(logps.sum(), inputs), torch.autograd.grad(plain.sum(), inputs), strict=True
        ):
            assert torch.equal(one, other)
    assert not squares.requires_grad
    wanted = distributions(hidden, head, transform).exp().square().sum(-1).log()
    torch.testing.assert_close(squares, wanted.detach(), rtol=0, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(1)
    reference = ReferenceStates(torch.randn(5, 3).double(), nn.Linear(3, 7).double(), LogitTransform())
    tokens = torch.randint(7, (5,))
    values = [torch.randn(*shape, dtype=torch.float64) for shape in ((5, 4), (7, 4), (7,))]

    def total(some: Sequence[Tensor]) -> Tensor:
        head = nn.Linear(4, 7).double()
        object.__setattr__(head, "_parameters", {"weight": some[1], "bias": some[2]})
        logps, divergence, _ = logps_and_divergence(some[0], tokens, head, LogitTransform(softcap=1.5), reference)
        return (logps.sin() + divergence.square()).sum()

    leaves = [value.clone().requires_grad_() for value in values]
    for one, other in zip(torch.autograd.grad(total(leaves), leaves), finite_differences(total, values), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_no_logits_are_kept() -> None:
    """Between forward and backward, what autograd holds does not grow with the vocabulary."""
    kept: list[int] = []
    hidden, head = torch.randn(16, 8, requires_grad=True), nn.Linear(8, 5000, bias=False)
    reference = ReferenceStates(torch.randn(16, 8), nn.Linear(8, 5000, bias=False), LogitTransform())
    heads = {head.weight.data_ptr(), reference.head.weight.data_ptr()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in heads:
            kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logps_and_divergence(hidden, torch.zeros(16, dtype=torch.long), head, LogitTransform(), reference)
    assert kept
    assert sum(kept) < 16 * 8 * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_one_model_twice_it_is_nothing_exactly(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    hidden, head = 4 * torch.randn(40, 32, requires_grad=True), nn.Linear(32, 300)
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        states = ReferenceStates(hidden.detach(), head, LogitTransform())
        tokens = torch.randint(300, (40,))
        logps, divergence, others = logps_and_divergence(hidden, tokens, head, LogitTransform(), states)
    assert divergence.eq(0).all()
    assert torch.equal(logps.detach(), others)


def test_tokens_that_both_exclude_add_nothing() -> None:
    hidden, head = torch.randn(3, 4, requires_grad=True), nn.Linear(4, 5)
    with torch.no_grad():
        head.bias[2] = -torch.inf
    states = ReferenceStates(torch.randn(3, 4), head, LogitTransform())
    logps, divergence, _ = logps_and_divergence(hidden, torch.tensor([0, 1, 3]), head, LogitTransform(), states)
    (logps.sum() + divergence.sum()).backward()
    assert divergence.isfinite().all() and divergence.gt(0).all()
    assert hidden.grad is not None and hidden.grad.isfinite().all()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3, sliding and full layers, soft-capped logits"])
@pytest.mark.parametrize("layout", [DENSE, BLOCKS, SEQUENCES])
def test_the_scorer_hands_over_what_full_logits_say(family: str, layout: Layout) -> None:
    """One sequence at a time through stock transformers, with all logits."""
    policy, reference = Scorer(tiny_model(family)), moved(Scorer(build(SHAREABLE[family](), torch.float32)), 0.05)
    prompt = [1, 7, 9, 11]
    sequences = [sequence([*prompt, *rest, 2], 4) for rest in ([5, 6, 8], [5, 13], [21, 22, 23, 24])]
    batch = packed(sequences, layout)
    with torch.no_grad():
        values = policy(batch, asked=Asked(squares=True, reference=reference, divergence=True))
        known = policy(batch, asked=Asked(squares=True, reference=reference))
    assert known.divergence_S is None
    torch.testing.assert_close(known.reference_S, values.reference_S)
    torch.testing.assert_close(known.log_squares_S, values.log_squares_S)
    for number, one in enumerate(sequences):
        ids = torch.from_numpy(one.ids).long()
        with torch.no_grad():
            full, others = (
                scorer.model(input_ids=ids[None], use_cache=False).logits[0, 3:-1].double().log_softmax(-1)
                for scorer in (policy, reference)
            )
        own = batch.score_sequence_S == number
        for found, wanted in (
            (values.logps_S, full.gather(-1, ids[4:, None]).squeeze(-1)),
            (values.reference_S, others.gather(-1, ids[4:, None]).squeeze(-1)),
            (values.log_squares_S, (2 * full).logsumexp(-1)),
            (values.divergence_S, (others.exp() * (others - full)).sum(-1)),
        ):
            torch.testing.assert_close(found[own].double(), wanted, rtol=0, atol=3e-5)
