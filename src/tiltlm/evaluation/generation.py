"""Answers to prompts, greedy or sampled: decoded together, or by transformers' own `generate` where layers need it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.errors import NonFiniteError
from tiltlm.evaluation.decoding import Drawn, decode, decodes
from tiltlm.evaluation.drawing import Draw, Drawing
from tiltlm.model.loading import autocast
from tiltlm.model.prepacked import prepacked

ANSWERS_AT_ONCE = 256
"""Most answers that come about together: more make no step of a token faster by much."""
LEAST_ROOM = 1 << 30
"""Bytes of keys and values at once, where the weights take less. As much as the weights is fair: a step reads both."""


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How answers are drawn.

    most: tokens of the longest answer.
    seed: decides the draws, so that two models given the same seed differ by their weights alone.
    """

    most: int
    seed: int


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """One answer: its token ids, with the end-of-sequence token where the model ended by itself, and its text.

    logp: log pi(y|x) under the model that gave it, at the temperature of the draw, in nats.
    """

    ids: tuple[int, ...]
    text: str
    logp: float


def greedy(temperature: float = 1.0) -> tuple[Draw, ...]:
    """The likeliest token each time; the log-probability is told at the temperature."""
    return (Draw(temperature, None),)


def samples(count: int, temperature: float, first: int = 0) -> tuple[Draw, ...]:
    """Independent draws from the softmax at a temperature, with the random numbers `first`, `first` + 1, ..."""
    return tuple(Draw(temperature, first + number) for number in range(count))


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Sequence[int]],
    draws: Sequence[Sequence[Draw]],
    settings: GenerationSettings,
    terminators: frozenset[int],
    precision: torch.dtype,
    advance: Callable[[int], None] = lambda done: None,
    ranks: Ranks = ALONE,
) -> list[list[GeneratedAnswer]]:
    """Answers every prompt, greedily or from the plain softmax at a temperature.

    Nothing else shapes the distribution, whatever the checkpoint's own generation settings say: no penalty, cut, bias,
    forced or forbidden token, and no beams. An answer is decided by the seed, its prompt and its draw, and by neither
    the other prompts nor how many there are.

    Args:
        prompts: token ids, BOS included where the model wants one.
        draws: of each prompt, the answers wanted.
        terminators: token ids that end an answer.
        advance: called with the number of answers done since the last call.
        ranks: over which the model is shared out and opened: all of them give all answers, in step.

    Returns:
        For each prompt, in the order given, its answers.

    Raises:
        NonFiniteError: the model gives logits that are NaN or infinite.
    """
    # What is gathered in inference mode can be used in no other.
    without_gradients = torch.no_grad() if ranks.several else torch.inference_mode()
    answers: list[list[GeneratedAnswer]] = [[] for _ in prompts]
    wanted = [(number, draw) for number, own in enumerate(draws) for draw in own]
    wanted.sort(key=lambda one: (len(prompts[one[0]]), one[0]))  # stable: a prompt's answers stay in order
    by_loop = decodes(model)
    room = max(LEAST_ROOM, sum(own.nbytes for own in model.parameters()) // ranks.count)
    together = _fit_together(model, settings.most, room, padded=by_loop or not model._is_stateful)
    packing = prepacked(model) if precision is torch.float32 and not ranks.several else nullcontext()
    with without_gradients, packing:
        for group in _groups(wanted, prompts, together):
            asked = [prompts[number] for number, _ in group]
            drawing = Drawing(asked, [draw for _, draw in group], settings.most, settings.seed, model.device, ranks)
            with autocast(model.device, precision, keep=not ranks.several):
                drawn = (decode if by_loop else _by_transformers)(model, asked, drawing, settings.most, terminators)
            for (number, _), answer in zip(group, _answers(drawn, tokenizer), strict=True):
                answers[number].append(answer)
            advance(len(group))
    return answers


def _groups(
    wanted: Sequence[tuple[int, Draw]], prompts: Sequence[Sequence[int]], together: Callable[[int, int, int], bool]
) -> Iterator[list[tuple[int, Draw]]]:
    """Answers that come about together, shortest prompts first."""
    group: list[tuple[int, Draw]] = []
    for one in wanted:
        if group and not together(len(group) + 1, len(prompts[group[0][0]]), len(prompts[one[0]])):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _fit_together(model: PreTrainedModel, most: int, room: int, padded: bool) -> Callable[[int, int, int], bool]:
    """Whether so many answers, to prompts of these lengths at least and at most, may come about together.

    room: bytes of keys and values that there may be.
    padded: whether the model can be given prompts of unlike lengths; padding leaks into some states that are carried
        from token to token.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None) or 1  # a model without attention keeps less
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    # Keys and values of one token in all layers, as if they were float32.
    column = 8 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * size
    columns = room // column

    def fit(answers: int, shortest: int, longest: int) -> bool:
        alike = padded or shortest == longest
        return alike and answers <= ANSWERS_AT_ONCE and answers * (longest + most) <= columns

    return fit


class _Drawn(LogitsProcessor):
    """Leaves `generate` no token but the one that is drawn."""

    def __init__(self, drawing: Drawing, drawn: Drawn, prompt: int, ends: torch.Tensor) -> None:
        self._drawing, self._drawn, self._prompt, self._ends = drawing, drawn, prompt, ends

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> Any:
        rows_R, step = torch.arange(len(scores), device=scores.device), input_ids.shape[1] - self._prompt
        tokens_R, logps_R = self._drawing.next(scores, rows_R, step)
        self._drawn.take(rows_R, tokens_R, logps_R, step, self._ends)
        return torch.full_like(scores, -torch.inf).scatter_(-1, tokens_R[:, None], 0.0)


def _by_transformers(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], drawing: Drawing, most: int, terminators: frozenset[int]
) -> Drawn:
    """As `decode`, for a model whose layers keep more than keys and values, or keep them otherwise."""
    generation = GenerationConfig(
        do_sample=False,
        max_new_tokens=most,
        eos_token_id=sorted(terminators) or None,
        pad_token_id=min(terminators, default=0),
    )
    ids, mask = _left_padded(prompts, generation.pad_token_id, model.device)
    drawn = Drawn.none(len(prompts), most, model.device)
    ends = torch.tensor(sorted(terminators), dtype=torch.long, device=model.device)
    with _own_settings_aside(model):
        # The class's own method: a checkpoint may bring a `generate` of its own, which is set on the model itself.
        type(model).generate(  # type: ignore[attr-defined]
            model,
            input_ids=ids,
            attention_mask=mask,
            generation_config=generation,
            logits_processor=LogitsProcessorList([_Drawn(drawing, drawn, ids.shape[1], ends)]),
        )
    return drawn


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


def _left_padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask


def _answers(drawn: Drawn, tokenizer: PreTrainedTokenizerFast) -> list[GeneratedAnswer]:
    counts_RT = torch.arange(drawn.logps_RT.shape[1], device=drawn.logps_RT.device) < drawn.lengths_R[:, None]
    logps = torch.where(counts_RT, drawn.logps_RT, 0).sum(1).tolist()
    found = zip(drawn.tokens_RT.tolist(), drawn.lengths_R.tolist(), logps, strict=True)
    return [_answer(tokens[:length], tokenizer, logp) for tokens, length, logp in found]


def _answer(tokens: list[int], tokenizer: PreTrainedTokenizerFast, logp: float) -> GeneratedAnswer:
    if not math.isfinite(logp):
        raise NonFiniteError(
            "the model answers with log-probabilities that are not finite. "
            "The model's weights or its arithmetic (model.precision) are at fault."
        )
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    assert isinstance(text, str)
    return GeneratedAnswer(tuple(tokens), text.strip(), logp)
