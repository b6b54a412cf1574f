"""Between chats and the text that they are written as: `Human: ...`, `Assistant: ...`."""

from __future__ import annotations

import re

from tiltlm.data.examples import Message, Text

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_NAMES = {role: name for name, role in _ROLES.items()}


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


def in_words(text: Text) -> str:
    """A prompt or an answer as text: a chat with the name of who speaks before each turn; of one assistant's message
    its content alone.

    What messages say besides (calls of tools, reasoning) stands behind the content, as `name: JSON`.
    """
    if isinstance(text, str):
        return text
    if len(text) == 1 and text[0].role == "assistant":
        return _said(text[0])
    return "\n\n".join(f"{_NAMES.get(one.role, one.role.capitalize())}: {_said(one)}" for one in text)


def _said(message: Message) -> str:
    return "\n".join([message.content, *(f"{name}: {value}" for name, value in message.further)]).strip("\n")
