"""How a reward model is shown a prompt and an answer: as a chat, as a pair of texts, joined, or the answer alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerFast

from tiltlm.data.turns import as_chat
from tiltlm.errors import ConfigError, JudgeError
from tiltlm.judges.judge_interface import Asked

Form = Literal["auto", "chat", "pair", "joined", "answer"]
"""`chat`: by the tokenizer's chat template. `pair`: as two texts, as the tokenizer puts them together. `joined`: one
after the other as they stand. `answer`: the answer alone. `auto`: `chat` where there is a template, else `joined`."""


@dataclass(frozen=True, slots=True)
class ShownText:
    """A text as tokens. types: which of two texts each token is of, where the model asks that.

    cut: whether its start was left out.
    """

    ids: list[int]
    types: list[int] | None
    cut: bool


def chosen_form(form: Form, tokenizer: PreTrainedTokenizerFast, name: str) -> Form:
    """The form, with `auto` settled.

    Raises:
        ConfigError: there is no chat template, and it is asked for.
    """
    if form == "auto":
        return "chat" if tokenizer.chat_template is not None else "joined"
    if form == "chat" and tokenizer.chat_template is None:
        raise ConfigError(f"the tokenizer of the judge `{name}` has no chat template: take another form.")
    return form


def shown_ids(asked: Asked, form: Form, tokenizer: PreTrainedTokenizerFast, longest: int | None) -> ShownText:
    """A prompt with an answer as the tokens that a model sees. What is longer loses its start.

    Raises:
        JudgeError: the chat template refuses it.
    """
    if form == "chat":
        return _encoded(tokenizer, (_rendered(asked, tokenizer),), False, longest)
    if form == "pair":
        return _encoded(tokenizer, (asked.prompt, asked.answer), True, longest)
    if form == "answer":
        return _encoded(tokenizer, (asked.answer,), True, longest)
    between = "\n\nAssistant: " if asked.messages is not None else ""
    return _encoded(tokenizer, (f"{asked.prompt}{between}{asked.answer}",), True, longest)


def _rendered(asked: Asked, tokenizer: PreTrainedTokenizerFast) -> str:
    """A verbatim prompt is read as a chat where it is written as one (`Human: `), else it is one user's message."""
    prompt = asked.messages if asked.messages is not None else as_chat(asked.prompt)
    assert not isinstance(prompt, str)
    chat = [{"role": one.role, "content": one.content} for one in prompt]
    chat.append({"role": "assistant", "content": asked.answer.strip()})
    try:
        return str(tokenizer.apply_chat_template(chat, tokenize=False))
    except Exception as error:  # a template may raise anything
        raise JudgeError(
            f"the judge's chat template refuses the prompt {asked.prompt.strip()[:60]!r}: {error}."
        ) from error


def _encoded(
    tokenizer: PreTrainedTokenizerFast, texts: tuple[str, ...], special: bool, longest: int | None
) -> ShownText:
    options: dict[str, Any] = {"add_special_tokens": special, "verbose": False}
    found = tokenizer(*texts, **options)
    cut = longest is not None and len(found["input_ids"]) > longest
    if cut:
        before = tokenizer.truncation_side
        tokenizer.truncation_side = "left"
        try:
            found = tokenizer(*texts, truncation=True, max_length=longest, **options)
        finally:
            tokenizer.truncation_side = before
    return ShownText(list(found["input_ids"]), found.get("token_type_ids"), cut)
