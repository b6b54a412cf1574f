"""Which prompts are answered before and after."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tiltlm.data.tokenization import PairTokenizer, RenderedPair
from tiltlm.errors import ConfigError
from tiltlm.evaluation.comparison import Prompt
from tiltlm.records import Message, Text

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def held_out_prompts(
    rendered: Sequence[RenderedPair], limit: int, tokenizer: PairTokenizer, room: int | None
) -> list[Prompt]:
    """The first `limit` different prompts of the held-out pairs, each in at most `room` tokens."""
    first: dict[str, str] = {}
    for pair in rendered:
        first.setdefault(pair.prompt, pair.id)
    chosen = list(first.items())[:limit]
    return [Prompt(name, text, tuple(tokenizer.encode_prompt(text, room)), counted=True) for text, name in chosen]


def extra_prompts(texts: Sequence[str], chat: bool, tokenizer: PairTokenizer, room: int | None) -> list[Prompt]:
    """A person's own prompts, written as the training data was: as a chat, or verbatim.

    Raises:
        ConfigError: a prompt is empty.
    """
    prompts = []
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise ConfigError(f"prompt {number} is empty: there is nothing to answer.")
        rendered, _ = tokenizer.render_prompt(as_chat(text) if chat else text)
        prompts.append(
            Prompt(f"prompt {number}", rendered, tuple(tokenizer.encode_prompt(rendered, room)), counted=False)
        )
    return prompts


def as_chat(text: str) -> Text:
    """A prompt as messages: `Human: ...\\n\\nAssistant:` turns where it has them, else one user message.

    What stands before the first turn is a system message.
    """
    parts = _TURN.split(text)
    turns = [(role, content.strip()) for role, content in zip(parts[1::2], parts[2::2], strict=True) if content.strip()]
    if not turns:
        return (Message("user", text.strip()),)
    system = (Message("system", parts[0].strip()),) if parts[0].strip() else ()
    return (*system, *(Message(_ROLES[role], content) for role, content in turns))
