"""Answers to prompts, greedy or sampled, by transformers' own `generate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from tiltlm.model.loading import autocast

SEQUENCES_AT_ONCE = 64
"""Sequences generated together, which bounds the memory of keys and values."""


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How answers are drawn.

    temperature: of the softmax; None takes the most likely token each time (greedy).
    samples: answers per prompt; 1 when greedy.
    seed: decides the draws, so that two models given the same seed differ by their weights alone.
    """

    max_new_tokens: int
    temperature: float | None
    samples: int
    seed: int


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """One answer: its token ids, with the end-of-sequence token where the model ended by itself, and its text."""

    ids: tuple[int, ...]
    text: str


@torch.inference_mode()
def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    terminators: frozenset[int],
    precision: torch.dtype,
    advance: Callable[[int], None] = lambda done: None,
) -> list[list[GeneratedAnswer]]:
    """Answers every prompt `settings.samples` times, greedily or from the plain softmax at the temperature.

    Nothing else shapes the distribution, whatever the checkpoint's own generation settings say: no penalty, cut, bias,
    forced or forbidden token, and no beams.

    Args:
        prompts: token ids, BOS included where the model wants one.
        terminators: token ids that end an answer.
        advance: called with the number of prompts done since the last call.

    Returns:
        For each prompt, in the order given, its answers.
    """
    generation = _generation_config(settings, terminators)
    answers: list[list[GeneratedAnswer]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    together = max(1, SEQUENCES_AT_ONCE // settings.samples)
    for start in range(0, len(order), together):
        group = order[start : start + together]
        ids, mask = _left_padded([prompts[index] for index in group], generation.pad_token_id, model.device)
        with (
            torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []),
            autocast(model.device, precision),
            _own_settings_aside(model),
        ):
            torch.manual_seed(settings.seed * 1_000_003 + start)
            # The class's own method: a checkpoint may bring a `generate` of its own, which is set on the model itself.
            output: torch.Tensor = type(model).generate(  # type: ignore[attr-defined]
                model, input_ids=ids, attention_mask=mask, generation_config=generation
            )
        for row, tokens in enumerate(output[:, ids.shape[1] :].tolist()):
            answers[group[row // settings.samples]].append(_answer(tokens, tokenizer, terminators))
        advance(len(group))
    return answers


def _generation_config(settings: GenerationSettings, terminators: frozenset[int]) -> GenerationConfig:
    hot = settings.temperature is not None
    sampling = {"temperature": settings.temperature, "top_k": 0, "top_p": 1.0} if hot else {}
    return GenerationConfig(
        **sampling,
        do_sample=hot,
        max_new_tokens=settings.max_new_tokens,
        num_return_sequences=settings.samples,
        eos_token_id=sorted(terminators) or None,
        pad_token_id=min(terminators, default=0),
    )


@contextmanager
def _own_settings_aside(model: PreTrainedModel) -> Iterator[None]:
    """Puts neutral generation settings in the place of the model's own.

    `generate` fills whatever the configuration it is given leaves unset from `model.generation_config`, names that
    it does not know included.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _left_padded(prompts: list[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask


def _answer(tokens: list[int], tokenizer: PreTrainedTokenizerFast, terminators: frozenset[int]) -> GeneratedAnswer:
    end = next((i + 1 for i, token in enumerate(tokens) if token in terminators), len(tokens))
    text = tokenizer.decode(tokens[:end], skip_special_tokens=True)
    assert isinstance(text, str)
    return GeneratedAnswer(tuple(tokens[:end]), text.strip())
