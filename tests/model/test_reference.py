"""The reference cache: right values, found again exactly when nothing that matters changed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import one_at_a_time
from tiny_runs import pairs, referenced, tiny_model

from tiltlm.data.tokens.token_columns import TokenizedExample, TokenizedSequence
from tiltlm.errors import ModelError, NonFiniteError
from tiltlm.model import reference
from tiltlm.model.reference import (
    ReferenceCache,
    fill_cache,
    fingerprint,
    missing_pairs,
    reference_address,
    with_reference,
)
from tiltlm.model.scorer import PairScorer


def test_cached_values_are_the_live_ones(tmp_path: Path) -> None:
    model = tiny_model()
    given = pairs(9)
    for item in referenced(PairScorer(model), given, tmp_path):
        with torch.no_grad():
            live = one_at_a_time(model, [item.pair.chosen, item.pair.rejected])
        assert [item.chosen_logp, item.rejected_logp] == pytest.approx(live.tolist(), abs=1e-4)


def test_only_what_is_missing_is_computed_and_survives_the_process(tmp_path: Path) -> None:
    scorer, given = PairScorer(tiny_model()), pairs(8)
    address = reference_address(scorer, torch.float32)
    cache = ReferenceCache(tmp_path, address)
    fill_cache(scorer, given[:5], cache, torch.float32, 256, lambda done: None)
    cache.close()
    again = ReferenceCache(tmp_path, address)
    assert missing_pairs(given, again) == given[5:]
    done: list[int] = []
    fill_cache(scorer, given[5:], again, torch.float32, 256, done.append)
    assert sum(done) == 3
    assert missing_pairs(given, again) == []
    with pytest.raises(KeyError, match="not in the reference cache"):
        with_reference(pairs(1, seed=9), again)


def test_the_address_is_content_alone(tmp_path: Path) -> None:
    """Ids and order of the pairs do not matter; tokens and where scoring starts do."""
    scorer, given = PairScorer(tiny_model()), pairs(4)
    cache = ReferenceCache(tmp_path, reference_address(scorer, torch.float32))
    fill_cache(scorer, given, cache, torch.float32, 256, lambda done: None)
    renamed = [TokenizedExample.pair("another name", pair.rejected, pair.chosen) for pair in reversed(given)]
    assert missing_pairs(renamed, cache) == []
    one = given[0].chosen
    later = TokenizedSequence(one.ids, one.first_scored + 1)
    other = TokenizedSequence(np.concatenate([one.ids[:-1], [5]]).astype(np.int32), one.first_scored)
    assert cache.get(later) is None
    assert cache.get(other) is None


def test_fingerprint_follows_weights_and_configuration() -> None:
    model = tiny_model()
    before = fingerprint(model)
    assert fingerprint(tiny_model()) == before
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-6
    assert fingerprint(model) != before
    other = tiny_model()
    other.config.rms_norm_eps *= 2
    assert fingerprint(other) != before


def test_arithmetics_do_not_mix(tmp_path: Path) -> None:
    scorer, given = PairScorer(tiny_model()), pairs(2)
    cache = ReferenceCache(tmp_path, reference_address(scorer, torch.float32))
    fill_cache(scorer, given, cache, torch.float32, 256, lambda done: None)
    narrow = ReferenceCache(tmp_path, reference_address(scorer, torch.bfloat16))
    assert missing_pairs(given, narrow) == given


def test_a_broken_reference_is_named(tmp_path: Path) -> None:
    scorer = PairScorer(tiny_model())
    with torch.no_grad():
        scorer.model.lm_head.weight[7] = float("nan")
    cache = ReferenceCache(tmp_path, "x")
    with pytest.raises(NonFiniteError, match="pair 0"):
        fill_cache(scorer, pairs(1), cache, torch.float32, 256, lambda done: None)
    assert missing_pairs(given := pairs(1), cache) == given


def test_the_address_covers_what_computes_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = PairScorer(tiny_model())
    addresses = {reference_address(scorer, torch.float32), reference_address(scorer, torch.bfloat16)}
    assert reference_address(PairScorer(tiny_model()), torch.float32) in addresses
    with monkeypatch.context() as changed:
        changed.setattr(reference, "SCORER_REVISION", reference.SCORER_REVISION + 1)
        addresses.add(reference_address(scorer, torch.float32))
    with monkeypatch.context() as changed:
        changed.setattr(PairScorer, "device", torch.device("cuda"))
        addresses.add(reference_address(scorer, torch.float32))
    scorer.unshared_because = "of a reason"
    addresses.add(reference_address(scorer, torch.float32))
    eager = tiny_model()
    eager.set_attn_implementation("eager")
    addresses.add(reference_address(PairScorer(eager), torch.float32))
    assert len(addresses) == 6
    assert all(re.fullmatch(r"[\w.-]+", address) for address in addresses)


def test_an_attention_from_the_hub_makes_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = PairScorer(tiny_model())
    monkeypatch.setattr(scorer.model.config, "_attn_implementation_internal", "kernels-community/flash-attn")
    assert "/" not in reference_address(scorer, torch.float32)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "address.sqlite").write_text("no database at all" * 100)
    with pytest.raises(ModelError, match=r"address\.sqlite cannot be used .*--clear reference"):
        ReferenceCache(tmp_path, "address")
