"""Log-probabilities of given completions, scored as training scores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tiltlm.api.side_effects import leaving_no_trace
from tiltlm.config import DataConfig, HubConfig, Precision
from tiltlm.data.examples import Example, Message
from tiltlm.data.files.raw_rows import UNREADABLE
from tiltlm.data.formats.fields import Fields, RowError
from tiltlm.data.formats.messages import as_chat
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.errors import DataError
from tiltlm.model.adapters import load_scorer
from tiltlm.model.attention import attention_kept
from tiltlm.model.finding import find_model
from tiltlm.model.given import Model, fast_tokenizer, in_float32, name_of, own_tokenizer
from tiltlm.model.loading import choose_device, choose_precision, facts_of, load_tokenizer, model_facts
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import score as score_columns
from tiltlm.objectives.interface import CHOSEN

TOKENS_AT_ONCE = 4096
"""Columns in one forward pass of `score`."""


@dataclass(frozen=True, slots=True)
class CompletionScore:
    """What a model thinks of one completion, in nats.

    logp: log pi(y|x), the sum over its tokens, the end-of-sequence token among them.
    token_ids, token_logps: its tokens, and the log-probability of each given all before it.
    """

    logp: float
    token_ids: tuple[int, ...]
    token_logps: tuple[float, ...]


def score(
    model: Model,
    prompts: Sequence[str | Sequence[Mapping[str, object]]],
    completions: Sequence[str | Sequence[Mapping[str, object]]],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    precision: Precision = "float32",
    token_budget: int = TOKENS_AT_ONCE,
) -> list[CompletionScore]:
    """Log-probabilities of given completions, scored as training scores them.

    Args:
        model: a name, a folder, or a loaded model, which needs its `tokenizer` and is left as it is. Weights of a
            narrower type are float32 while it scores, as in training.
        prompts, completions: one completion for each prompt: both verbatim text, or both lists of messages
            (`{"role": ..., "content": ...}`) for the model's chat template.
        precision: of the arithmetic; `auto` as in training.
        token_budget: most columns in one forward pass.

    Raises:
        DataError: a prompt or completion cannot be used, or is longer than the model takes: nothing is cut.
        ModelError: the model cannot be had.
    """
    if isinstance(prompts, str) or isinstance(completions, str):
        raise DataError("prompts and completions are lists: put a single one into a list.")
    if len(prompts) != len(completions):
        raise DataError(f"there are {len(prompts)} prompts and {len(completions)} completions: give one for each.")
    if not prompts:
        return []
    given = model if isinstance(model, PreTrainedModel) else None
    with attention_kept(given):
        with leaving_no_trace():
            scorer, encoder = _scorer(model, tokenizer)
        columns = _columns(encoder, prompts, completions)
        was_training = scorer.model.training
        scorer.model.eval()
        try:
            arithmetic, _ = choose_precision(precision, scorer.device)
            with in_float32(scorer.model):
                values = score_columns(scorer, columns, arithmetic, token_budget)
        finally:
            scorer.model.train(was_training)
    parts = np.split(values, columns.scored_starts[1:-1])
    return [
        CompletionScore(float(logps.sum()), tuple(one.ids[one.first_scored :].tolist()), tuple(logps.tolist()))
        for one, logps in zip((columns.sequence(n) for n in range(columns.sequences)), parts, strict=True)
    ]


def _columns(encoder: ExampleTokenizer, prompts: Sequence[object], completions: Sequence[object]) -> TokenColumns:
    """The completions' tokens, none of them cut or left out."""
    examples = [
        _example(number, prompt, completion)
        for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True), start=1)
    ]
    tokenized = encoder(examples)
    if tokenized.dropped:
        first = tokenized.dropped[0]
        raise DataError(f"{first.id}: {first.reason} ({first.detail}). {len(tokenized.dropped)} in all.")
    return TokenColumns.of(tokenized.examples)


def _example(number: int, prompt: object, completion: object) -> Example:
    """A prompt with its completion; an answer to a chat may be text, which is then what the assistant says."""
    name, fields = f"completion {number}", Fields({})
    try:
        if isinstance(prompt, str):
            if not isinstance(completion, str):
                raise RowError(UNREADABLE, "its prompt is text, so it must be text too")
            return Example(name, prompt, (completion,), (CHOSEN,))
        said = (Message("assistant", completion),) if isinstance(completion, str) else None
        return Example(
            name, as_chat(prompt, "the prompt", fields), (said or as_chat(completion, "it", fields),), (CHOSEN,)
        )
    except RowError as problem:
        raise DataError(f"{name}: {problem.reason} ({problem.detail}).") from problem


def _scorer(model: Model, tokenizer: PreTrainedTokenizerBase | None) -> tuple[Scorer, ExampleTokenizer]:
    """A model that scores, and its tokenizer, which neither cuts nor leaves out."""
    if isinstance(model, PreTrainedModel):
        fast = own_tokenizer(tokenizer)
        facts = facts_of(model.config, model.generation_config, fast)
        scorer = Scorer(model)
    else:
        source = find_model(name_of(model, None), HubConfig())
        fast = load_tokenizer(source) if tokenizer is None else fast_tokenizer(tokenizer)
        facts = model_facts(source, fast)
        scorer = load_scorer(source, choose_device("auto"))
    data = DataConfig(max_length=facts.positions or np.iinfo(np.int32).max)
    return scorer, ExampleTokenizer(fast, data, facts.terminators)
