"""Text and messages out of a row's fields, or the reason why there are none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tiltlm.data.reading import UNREADABLE, kind_of
from tiltlm.records import Message

# Who speaks in ShareGPT's `from`, as the role that chat templates know.
_ROLE_OF_SPEAKER = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


class RowError(Exception):
    """A row, or a pair of it, cannot be used. It becomes a DroppedPair; it never reaches the user as an exception."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def field(fields: Mapping[str, object], column: str) -> object:
    """The value of a column, which must be there and not null."""
    value = fields.get(column)
    if value is None:
        raise RowError(UNREADABLE, f"`{column}` is {'null' if column in fields else 'missing'}")
    return value


def text_field(fields: Mapping[str, object], column: str) -> str:
    value = field(fields, column)
    if not isinstance(value, str):
        raise RowError(UNREADABLE, f"`{column}` is {kind_of(value)}, not text")
    return value


def decoded(value: object) -> object:
    """A list or object, given as one or as its JSON text, which is all that a CSV cell can hold."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value  # a text that begins with a bracket
    return value


def holds_messages(value: object) -> bool:
    """Whether this is a chat, a list of messages (or one message), in OpenAI's or ShareGPT's keys."""
    value = decoded(value)
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and ({"role", "content"} <= first.keys() or {"from", "value"} <= first.keys())


def messages_field(fields: Mapping[str, object], column: str) -> tuple[Message, ...]:
    """The messages of a column that holds a list of them."""
    value = decoded(field(fields, column))
    if not isinstance(value, list):
        raise RowError(UNREADABLE, f"`{column}` is {kind_of(value)}, not a list of messages")
    return tuple(_message(item, f"`{column}`, message {number}") for number, item in enumerate(value, start=1))


def completion_field(fields: Mapping[str, object], column: str) -> tuple[Message, ...]:
    """The messages of a column that holds a list of them, one of them, or what the assistant says."""
    value = field(fields, column)
    if not holds_messages(value) and isinstance(value, str):
        return (Message("assistant", value),)
    value = decoded(value)
    return messages_field({column: [value] if isinstance(value, dict) else value}, column)


def _message(value: object, where: str) -> Message:
    if not isinstance(value, dict):
        raise RowError(UNREADABLE, f"{where} is {kind_of(value)}, not an object with `role` and `content`")
    sharegpt = "role" not in value and "from" in value
    role = _text(value, "from" if sharegpt else "role", where)
    content = _text(value, "value" if sharegpt else "content", where)
    if not sharegpt:
        return Message(role, content)
    if role not in _ROLE_OF_SPEAKER:
        raise RowError(UNREADABLE, f"{where} is from `{role}`; known are {', '.join(_ROLE_OF_SPEAKER)}")
    return Message(_ROLE_OF_SPEAKER[role], content)


def _text(message: dict[str, Any], key: str, where: str) -> str:
    value = message.get(key)
    if not isinstance(value, str):
        raise RowError(UNREADABLE, f"{where}: `{key}` is {kind_of(value) if key in message else 'missing'}, not text")
    return value
