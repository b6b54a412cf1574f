"""Answers are greedy, or drawn from the plain softmax, whatever a checkpoint's generation settings say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_models import SHAREABLE, UNSHAREABLE, VOCABULARY, build
from tiny_runs import tiny_model
from tiny_tokenizers import byte_level
from transformers import PreTrainedModel

from tiltlm.errors import NonFiniteError
from tiltlm.evaluation import decoding, generation
from tiltlm.evaluation.decoding import decodes
from tiltlm.evaluation.drawing import Draw, Drawing
from tiltlm.evaluation.generation import GeneratedAnswer, GenerationSettings, generate_answers, greedy, samples

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
    model: PreTrainedModel, draws: Sequence[Draw], most: int = 8, seed: int = 0, prompts: Any = PROMPTS
) -> list[list[GeneratedAnswer]]:
    settings, wanted = GenerationSettings(most, seed), [draws] * len(prompts)
    return generate_answers(model, byte_level(), prompts, wanted, settings, frozenset({END}), torch.float32)


def checkpoint(**settings: Any) -> PreTrainedModel:
    """A model that is answered for by transformers' `generate`, which reads such settings."""
    model = built("bloom, alibi")
    # Set one by one: read from a file, they are not checked for sense together.
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    return model


@pytest.mark.parametrize("names", [[name] for name in HOSTILE] + [list(HOSTILE)], ids=lambda names: names[0])
def test_greedy_answers_are_the_largest_logits(names: list[str]) -> None:
    model = checkpoint(**{name: HOSTILE[name] for name in names})
    answers = generated(model, greedy())
    assert [answer.ids for (answer,) in answers] == [greedy_loop(model, prompt, 8) for prompt in PROMPTS]


@pytest.mark.parametrize("names", [[name] for name in HOSTILE] + [list(HOSTILE)], ids=lambda names: names[0])
def test_samples_are_those_of_a_checkpoint_without_settings(names: list[str]) -> None:
    hostile = generated(checkpoint(**{name: HOSTILE[name] for name in names}), samples(3, 0.8), seed=5)
    assert hostile == generated(checkpoint(), samples(3, 0.8), seed=5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_samples_follow_the_softmax(temperature: float) -> None:
    model, draws = checkpoint(**HOSTILE), 6000
    (answers,) = generated(model, samples(draws, temperature), 1, 1, PROMPTS[:1])
    counts = Counter(answer.ids[0] for answer in answers)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1]
    wanted = (logits / temperature).softmax(-1).tolist()
    for token in range(VOCABULARY):
        deviation = math.sqrt(draws * wanted[token] * (1 - wanted[token]))
        assert abs(counts[token] - draws * wanted[token]) <= 5 * deviation + 1


def test_a_generate_that_comes_with_the_checkpoint_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    model = checkpoint()
    monkeypatch.setattr(model, "generate", lambda **arguments: pytest.fail("this is another's"))
    assert generated(model, greedy(), 2, 0, PROMPTS[:1])[0][0].ids


def test_the_checkpoints_settings_are_left_as_they_were() -> None:
    model = checkpoint(**HOSTILE)
    own = model.generation_config
    generated(model, greedy(), 2)
    assert model.generation_config is own and own.repetition_penalty == HOSTILE["repetition_penalty"]


def built(name: str) -> PreTrainedModel:
    if name in SHAREABLE:
        return build(SHAREABLE[name](), torch.float64)  # so that no two logits are near
    return build(UNSHAREABLE[name][0](), torch.float32)  # transformers' padding of some is NaN in float64


@pytest.mark.parametrize("name", [*SHAREABLE, *UNSHAREABLE])
def test_greedy_answers_are_those_of_transformers(name: str) -> None:
    """Every architecture whose answers are decoded here, and some others."""
    model = built(name)
    assert decodes(model) == (name in SHAREABLE)
    found = generated(model, greedy())
    for prompt, (answer,) in zip(PROMPTS, found, strict=True):
        wanted = model.generate(  # type: ignore[operator]
            torch.tensor([prompt]), do_sample=False, max_new_tokens=8, eos_token_id=END, pad_token_id=0
        )
        assert list(answer.ids) == wanted[0, len(prompt) :].tolist()


@pytest.mark.parametrize("name", [*SHAREABLE, "bloom, alibi"])
def test_log_probabilities_are_those_of_the_whole_sequences(name: str) -> None:
    """Those told while drawing equal stock transformers' of prompt and answer, one at a time; some end early."""
    model = built(name)
    draws = greedy(0.7) + samples(6, 0.7)
    for prompt, answers in zip(PROMPTS, generated(model, draws, most=12), strict=True):
        for answer in answers:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*prompt, *answer.ids]]), use_cache=False).logits[0]
            logps = (logits / 0.7).log_softmax(-1)[len(prompt) - 1 : -1]
            wanted = logps.gather(-1, torch.tensor(answer.ids)[:, None]).sum()
            assert answer.logp == pytest.approx(float(wanted), abs=1e-4)


def test_an_answer_is_decided_by_seed_prompt_and_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(dtype=torch.float64)
    alone = [generated(model, samples(5, 1.3), 12, prompts=[prompt])[0] for prompt in PROMPTS]
    ids = [[answer.ids for answer in answers] for answers in alone]
    assert len({len(answer) for answers in ids for answer in answers}) > 1  # some end before others
    assert len({tuple(answers) for answers in ids}) == 3 and len(set(ids[0])) == 5

    def same(draws: Sequence[Draw], part: slice, prompts: Sequence[tuple[int, ...]] = PROMPTS, most: int = 12) -> None:
        found = dict(zip(prompts, generated(model, draws, most, prompts=prompts), strict=True))
        for prompt, answers in zip(PROMPTS, ids, strict=True):
            assert [own.ids for own in found[prompt]] == [answer[:most] for answer in answers[part]]

    same(samples(5, 1.3), slice(5))
    same(samples(5, 1.3), slice(5), [*PROMPTS[::-1], (1, 9, 9, 9)])
    same(samples(2, 1.3, first=3), slice(3, 5))
    same(samples(5, 1.3), slice(5), most=4)
    monkeypatch.setattr(generation, "ANSWERS_AT_ONCE", 2)
    monkeypatch.setattr(decoding, "PROMPT_COLUMNS", 4)
    same(samples(5, 1.3), slice(5))
    other = generated(model, samples(5, 1.3), 12, seed=1)
    assert all(answer.ids not in own for answers, own in zip(other, ids, strict=True) for answer in answers)


def test_what_ends_is_computed_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt once, and of answers only those that go on, unless too few have ended for moving the others."""
    model, computed = tiny_model(dtype=torch.float64), []
    forward = model.base_model.forward

    def counted(**arguments: Any) -> Any:
        computed.append(arguments["input_ids"].numel())
        return forward(**arguments)

    monkeypatch.setattr(decoding, "KEPT", 1.0)
    monkeypatch.setattr(model.base_model, "forward", counted)
    monkeypatch.setattr(generation, "decodes", lambda _: True)
    answers = generated(model, samples(5, 1.3), 12)
    lengths = [len(answer.ids) for own in answers for answer in own]
    laid_out = len({prompt[: end + 1] for prompt in PROMPTS for end in range(len(prompt))})
    assert computed[0] == laid_out
    assert computed[1:] == [sum(length > step for length in lengths) for step in range(1, max(lengths))]


def test_logits_that_are_not_finite_are_refused() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = math.nan
    with pytest.raises(NonFiniteError, match="not finite"):
        generated(model, samples(2, 1.0))


def test_a_token_of_no_probability_is_never_drawn() -> None:
    logits = torch.full((4, 6), -math.inf)
    logits[:, 2] = 0.0
    drawing = Drawing([(1,)] * 4, [Draw(1.0, number) for number in range(4)], 1, 0, torch.device("cpu"))
    for edge in (0.0, 0.5, 1 - 2**-53):
        drawing._numbers_RT.fill_(edge)
        tokens, logps = drawing.next(logits, torch.arange(4), 0)
        assert tokens.tolist() == [2] * 4 and logps.tolist() == [0.0] * 4
