"""Which prompts are answered before and after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tiltlm.data.examples import Text
from tiltlm.data.tokens.rendering import RenderedExample
from tiltlm.data.tokens.templates import TemplateRefusalError
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.data.turns import as_chat
from tiltlm.errors import ConfigError
from tiltlm.evaluation.comparison import Prompt


def first_of_prompts(rendered: Iterable[RenderedExample], limit: int) -> list[RenderedExample]:
    """The first example of each of the first `limit` different prompts."""
    first: dict[str, RenderedExample] = {}
    for example in rendered:
        # Examples may be rendered only as they are looked at.
        if len(first) == limit:
            break
        first.setdefault(example.question, example)
    return list(first.values())


def held_out_prompts(
    rendered: Sequence[RenderedExample], limit: int, tokenizer: ExampleTokenizer, room: int | None
) -> list[Prompt]:
    """The first `limit` different prompts of the held-out pairs, each in at most `room` tokens."""
    prompts = []
    for example in first_of_prompts(rendered, limit):
        text, ids = tokenizer.ask(example.source.prompt, example.source.tools, room)
        prompts.append(Prompt(example.id, text, tuple(ids), counted=True, asked=example.source.prompt))
    return prompts


def extra_prompts(texts: Sequence[str], chat: bool, tokenizer: ExampleTokenizer, room: int | None) -> list[Prompt]:
    """A person's own prompts, written as the training data was: as a chat, or verbatim.

    Raises:
        ConfigError: a prompt is empty, or the chat template refuses it or leaves out some of it.
    """
    prompts = []
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise ConfigError(f"prompt {number} is empty: there is nothing to answer.")
        prompt = as_chat(text) if chat else text
        try:
            _require_whole(number, prompt, tokenizer)
            rendered, ids = tokenizer.ask(prompt, None, room)
        except TemplateRefusalError as refusal:
            raise ConfigError(
                f"prompt {number} ({text.strip()[:60]!r}) is refused by the model's chat template: it says: {refusal}."
            ) from refusal
        prompts.append(Prompt(f"prompt {number}", rendered, tuple(ids), counted=False, asked=prompt))
    return prompts


def _require_whole(number: int, prompt: Text, tokenizer: ExampleTokenizer) -> None:
    """Refuses a prompt of which the model would see a part: its answers would be those to another one."""
    if isinstance(prompt, str):
        return
    losses = [loss for loss in tokenizer.renderer.lost_of_prompt(prompt) if "reasoning" not in loss.what]
    if losses:
        raise ConfigError(
            f"prompt {number}: the model's chat template leaves out {losses[0].what}. Write it into the last question, "
            "or leave it out."
        )
