"""Loaded models kept in the cache: found again by all that they are, and left as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_tokenizers import byte_level
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from tiltlm.model.given import keep_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path))


def small() -> GPT2LMHeadModel:
    """Made from a configuration, as nothing that was ever loaded."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=300, n_layer=1, n_embd=16, n_head=2, eos_token_id=1))


def test_the_model_is_as_it_was_and_found_again() -> None:
    model, tokenizer = small(), byte_level()
    config = model.config.to_dict()
    kept = keep_model(model, tokenizer)
    assert model.config.to_dict() == config
    assert keep_model(model, tokenizer) == kept


def test_how_the_tokenizer_was_last_called_makes_no_other_model() -> None:
    model, tokenizer = small(), byte_level()
    tokenizer.pad_token = tokenizer.eos_token
    kept = keep_model(model, tokenizer)
    tokenizer(["a", "longer than that"], padding=True, truncation=True, max_length=3)
    assert keep_model(model, tokenizer) == kept


def test_other_ends_of_answers_make_another_model() -> None:
    tokenizer = byte_level()
    model = GPT2LMHeadModel.from_pretrained(keep_model(small(), tokenizer))
    kept = keep_model(model, tokenizer)
    assert model.generation_config is not None
    model.generation_config.eos_token_id = [1, 7]
    changed = keep_model(model, tokenizer)
    assert changed != kept
    assert GenerationConfig.from_pretrained(changed).eos_token_id == [1, 7]
