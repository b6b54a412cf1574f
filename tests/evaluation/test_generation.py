"""Answers are greedy, or drawn from the plain softmax, whatever a checkpoint's generation settings say."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from tiny_models import VOCABULARY
from tiny_runs import tiny_model
from tiny_tokenizers import byte_level
from transformers import PreTrainedModel

from tiltlm.evaluation.generation import GeneratedAnswer, GenerationSettings, generate_answers

PROMPTS = [(1, 5, 9, 5, 9), (1, 7), (1, 30, 31, 32, 33, 34, 35)]
END = 2

# Each shapes what is generated when `generate` takes it from the checkpoint.
HOSTILE: dict[str, Any] = {
    "do_sample": True,
    "temperature": 0.31,
    "top_k": 3,
    "top_p": 0.4,
    "min_p": 0.3,
    "typical_p": 0.5,
    "epsilon_cutoff": 0.02,
    "eta_cutoff": 0.02,
    "repetition_penalty": 7.0,
    "encoder_repetition_penalty": 3.0,
    "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1,
    "num_beams": 4,
    "length_penalty": 5.0,
    "early_stopping": True,
    "bad_words_ids": [[3], [4], [10, 11]],
    "suppress_tokens": list(range(3, 40)),
    "begin_suppress_tokens": list(range(3, 60)),
    "sequence_bias": [[[20], 9.0]],
    "forced_bos_token_id": 6,
    "forced_eos_token_id": 7,
    "exponential_decay_length_penalty": [1, 3.0],
    "min_length": 9,
    "min_new_tokens": 9,
    "max_length": 8,
    "max_new_tokens": 2,
    "max_time": 1e-9,
    "guidance_scale": 4.0,
    "renormalize_logits": True,
    "remove_invalid_values": True,
    "watermarking_config": {"greenlist_ratio": 0.1, "bias": 9.0},
    "prompt_lookup_num_tokens": 3,
    "num_return_sequences": 3,
    "eos_token_id": [8, 9, 10, 11, 12],
    "pad_token_id": 13,
    "use_cache": False,
    "cache_implementation": "static",
    "return_dict_in_generate": True,
    "output_scores": True,
    "penalty_alpha": 0.6,
    "diversity_penalty": 1.0,
    "dola_layers": "low",
    "a_name_of_another_version": 3,
}


def greedy_loop(model: PreTrainedModel, prompt: tuple[int, ...], most: int) -> tuple[int, ...]:
    """The largest logit, again and again."""
    ids = list(prompt)
    while len(ids) < len(prompt) + most:
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] == END:
            break
    return tuple(ids[len(prompt) :])


def generated(
    model: PreTrainedModel, settings: GenerationSettings, prompts: Any = PROMPTS
) -> list[list[GeneratedAnswer]]:
    return generate_answers(model, byte_level(), prompts, settings, frozenset({END}), torch.float32)


def checkpoint(**settings: Any) -> PreTrainedModel:
    model = tiny_model()
    # Set one by one: read from a file, they are not checked for sense together.
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    return model


@pytest.mark.parametrize("names", [[name] for name in HOSTILE] + [list(HOSTILE)], ids=lambda names: names[0])
def test_greedy_answers_are_the_largest_logits(names: list[str]) -> None:
    model = checkpoint(**{name: HOSTILE[name] for name in names})
    answers = generated(model, GenerationSettings(8, None, 1, seed=0))
    assert [answer.ids for (answer,) in answers] == [greedy_loop(model, prompt, 8) for prompt in PROMPTS]


@pytest.mark.parametrize("names", [[name] for name in HOSTILE] + [list(HOSTILE)], ids=lambda names: names[0])
def test_samples_are_those_of_a_checkpoint_without_settings(names: list[str]) -> None:
    settings = GenerationSettings(8, 0.8, 3, seed=5)
    hostile = generated(checkpoint(**{name: HOSTILE[name] for name in names}), settings)
    assert hostile == generated(checkpoint(), settings)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_samples_follow_the_softmax(temperature: float) -> None:
    model, draws = checkpoint(**HOSTILE), 6000
    (answers,) = generated(model, GenerationSettings(1, temperature, draws, seed=1), PROMPTS[:1])
    counts = Counter(answer.ids[0] for answer in answers)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1]
    wanted = (logits / temperature).softmax(-1).tolist()
    for token in range(VOCABULARY):
        deviation = math.sqrt(draws * wanted[token] * (1 - wanted[token]))
        assert abs(counts[token] - draws * wanted[token]) <= 5 * deviation + 1


def test_a_generate_that_comes_with_the_checkpoint_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    monkeypatch.setattr(model, "generate", lambda **arguments: pytest.fail("this is another's"))
    assert generated(model, GenerationSettings(2, None, 1, seed=0), PROMPTS[:1])[0][0].ids


def test_the_checkpoints_settings_are_left_as_they_were() -> None:
    model = checkpoint(**HOSTILE)
    own = model.generation_config
    generated(model, GenerationSettings(2, None, 1, seed=0))
    assert model.generation_config is own and own.repetition_penalty == HOSTILE["repetition_penalty"]
