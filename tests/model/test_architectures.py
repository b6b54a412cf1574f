"""Packed rows with shared prefixes give what one sequence at a time gives, on every supported architecture."""

from __future__ import annotations

import pytest
import torch
from tiny_models import SHAREABLE, UNSHAREABLE, build, family, one_at_a_time
from tiny_runs import packed

from tiltlm.model.scorer import Scorer, sequence_logps
from tiltlm.plan.layouts import SEQUENCES

ARCHITECTURES = {**SHAREABLE, **{name: config for name, (config, _) in UNSHAREABLE.items()}}


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_log_probabilities_and_gradients_equal_the_oracle(name: str) -> None:
    model = build(ARCHITECTURES[name]())
    scorer, sequences = Scorer(model), family()
    batch = packed(sequences, scorer.layout)
    weights = torch.linspace(-1, 1, len(sequences), dtype=torch.float64)

    fast = sequence_logps(scorer(batch), batch)
    (fast * weights).sum().backward()
    fast_gradients = gradients(model)
    slow = one_at_a_time(model, sequences)
    (slow * weights).sum().backward()
    slow_gradients = gradients(model)

    assert batch.tokens_N.tolist() == [sequence.scored_tokens for sequence in sequences]
    # Some of the unshared models compute parts in float32 whatever their weights are.
    tolerance = 1e-10 if name in SHAREABLE else 1e-4
    torch.testing.assert_close(fast.double(), slow.double(), rtol=0, atol=tolerance)
    assert fast_gradients.keys() == slow_gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in slow_gradients.values())
    for parameter, gradient in slow_gradients.items():
        # Rotary tables and a few normalisations stay in float32 inside transformers, hence not 1e-10 here.
        torch.testing.assert_close(fast_gradients[parameter], gradient, rtol=1e-5, atol=1e-6 * largest)


@pytest.mark.parametrize("name", SHAREABLE)
def test_these_share_prefixes(name: str) -> None:
    scorer = Scorer(build(SHAREABLE[name](), torch.float32))
    assert scorer.layout.trees
    batch = packed(family())
    apart = packed(family(), SEQUENCES)
    assert batch.tokens_RL.numel() < apart.tokens_RL.numel()


@pytest.mark.parametrize("name", UNSHAREABLE)
def test_these_are_recognised_and_run_unshared(name: str) -> None:
    config, reason = UNSHAREABLE[name]
    scorer = Scorer(build(config(), torch.float32))
    assert not scorer.layout.trees
    assert scorer.unshared_because is not None
    assert reason in scorer.unshared_because
    with pytest.raises(ValueError, match="cannot take trees"):
        scorer(packed(family()))


def test_a_soft_cap_on_attention_is_never_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 5.17 gives Gemma 2 an attention that knows no soft cap, and says nothing of it."""
    config = UNSHAREABLE["gemma2, soft-capped attention"][0]()
    config.attn_logit_softcapping = 0.5
    config._attn_implementation = "eager"
    exact = build(config)
    for kind in (type(exact), type(exact.base_model)):
        monkeypatch.setattr(kind, "_supports_sdpa", True)
    config._attn_implementation = "sdpa"
    model = build(config)
    assert model.config._attn_implementation == "sdpa"
    scorer = Scorer(model)
    batch = packed(family(), SEQUENCES)
    found = sequence_logps(scorer(batch), batch)
    torch.testing.assert_close(found, one_at_a_time(exact, family()), rtol=1e-5, atol=1e-5)


def test_row_layout_changes_nothing() -> None:
    """Alone, all in one call, in another order, and without sharing: the same numbers."""
    model = build(SHAREABLE["llama"]())
    scorer, sequences = Scorer(model), family(seed=3)
    together = sequence_logps(scorer(batch := packed(sequences)), batch)
    backwards = sequence_logps(scorer(batch := packed(sequences[::-1])), batch)
    apart = sequence_logps(scorer(batch := packed(sequences, SEQUENCES)), batch)
    alone = [sequence_logps(scorer(batch := packed([one])), batch) for one in sequences]
    torch.testing.assert_close(backwards.flip(0), together, rtol=0, atol=1e-10)
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-6)
