"""What a column may hold, as formats ask for it: each kind in words and as a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tiltlm.data.formats.fields import is_empty
from tiltlm.data.formats.labelled import label_of
from tiltlm.data.formats.layouts import ASSISTANT_HEADER, has_messages
from tiltlm.data.formats.notation import decoded, holds_messages, is_open_chat


@dataclass(frozen=True, slots=True)
class Kind:
    """What a column may hold: in words, and as a test."""

    words: str
    holds: Callable[[object], bool]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not holds_messages(value)


def _are_texts(value: object) -> bool:
    return _is_text(value) or (isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value))


def _are_two_texts(value: object) -> bool:
    value = decoded(value)
    return isinstance(value, list) and len(value) == 2 and all(isinstance(item, str) for item in value)


def _are_messages(value: object) -> bool:
    return holds_messages(value) or (isinstance(value, list) and bool(value) and holds_messages(value[0]))


TEXT = Kind("text", _is_text)
TEXTS = Kind("text, or a list of texts", _are_texts)
MESSAGES = Kind("a list of messages", _are_messages)
OPEN_CHAT = Kind("a list of messages that waits for an answer", is_open_chat)
ANSWER = Kind("text or messages", lambda value: _are_texts(value) or _are_messages(value))
DIALOGUE = Kind(
    r"a dialogue of `\n\nHuman:` and `\n\nAssistant:` turns",
    lambda value: isinstance(value, str) and ASSISTANT_HEADER in value,
)
TWO_TEXTS = Kind("a list of two texts, the chosen one first", _are_two_texts)
LABEL = Kind("true or false", lambda value: label_of(value) is not None)
VERDICT = Kind("a number or a word", lambda value: isinstance(value, int | float | str) and not is_empty(value))
SOME = Kind("anything", lambda value: not is_empty(value))
TURNS = Kind("a list of turns", lambda value: isinstance(decoded(value), list) and not is_empty(decoded(value)))
LIST = Kind("a list", lambda value: isinstance(decoded(value), list))
OBJECT_OF_MESSAGES = Kind("an object with `messages`", has_messages)
