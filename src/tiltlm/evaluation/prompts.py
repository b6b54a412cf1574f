"""Which prompts are answered before and after."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tiltlm.data.tokenization import PairTokenizer, RenderedPair
from tiltlm.evaluation.comparison import Prompt
from tiltlm.records import Message, Text

_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def held_out_prompts(rendered: Sequence[RenderedPair], limit: int, tokenizer: PairTokenizer) -> list[Prompt]:
    """The first `limit` different prompts of the held-out pairs."""
    first: dict[str, str] = {}
    for pair in rendered:
        first.setdefault(pair.prompt, pair.id)
    chosen = list(first.items())[:limit]
    return [Prompt(name, text, tuple(tokenizer.encode_prompt(text)), counted=True) for text, name in chosen]


def extra_prompts(texts: Sequence[str], chat: bool, tokenizer: PairTokenizer) -> list[Prompt]:
    """A person's own prompts, written as the training data was: as a chat, or verbatim."""
    prompts = []
    for number, text in enumerate(texts, start=1):
        rendered, _ = tokenizer.render_prompt(as_chat(text) if chat else text)
        prompts.append(Prompt(f"prompt {number}", rendered, tuple(tokenizer.encode_prompt(rendered)), counted=False))
    return prompts


def as_chat(text: str) -> Text:
    """A prompt as messages: `\\n\\nHuman: ... \\n\\nAssistant:` turns where it has them, else one user message."""
    parts = _TURN.split(text)
    turns = [(role, content.strip()) for role, content in zip(parts[1::2], parts[2::2], strict=True) if content.strip()]
    if not turns:
        return (Message("user", text.strip()),)
    return tuple(Message(_ROLES[role], content) for role, content in turns)
