"""Lists and objects that stand in the data as text: JSON's, or Python's, which is all that a CSV cell can hold."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from itertools import pairwise

_MESSAGE_KEYS = ("role", "from", "content", "value", "tool_calls", "function_call", "parts")
# A list of messages, or one, in anybody's notation: numpy's has no commas, and JSON may be cut off.
_LOOKS_LIKE_MESSAGES = re.compile(r"\s*(?:array\(\s*)?[\[(]?\s*\{\s*['\"](?:role|from|content|value|messages)['\"]\s*:")


def decoded(value: object) -> object:
    """A list or object, given as one or as its text in JSON or Python; any other value as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return _python_literal(value)


def holds_messages(value: object) -> bool:
    """Whether this is a chat: a list of messages, one message, or an object that holds them as `messages`."""
    value = decoded(value)
    if isinstance(value, dict) and "role" not in value:
        value = value.get("messages", value)
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, dict):
        return False
    return ("role" in first or "from" in first) and any(key in first for key in _MESSAGE_KEYS[2:])


def is_broken_messages(text: str) -> bool:
    """Whether a text was a list of messages once, and cannot be read as one now."""
    return _LOOKS_LIKE_MESSAGES.match(text) is not None and isinstance(decoded(text), str)


def _python_literal(text: str) -> object:
    """The value of Python's notation, or the text where it is none.

    Two texts side by side without a comma are one to Python; in numpy's notation they are two, so they are refused.
    """
    try:
        value = ast.literal_eval(text.strip())
        tokens = tokenize.generate_tokens(io.StringIO(text.strip()).readline)
        kinds = [token.type for token in tokens if token.type not in (tokenize.NL, tokenize.NEWLINE)]
    except (ValueError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError):
        return text
    glued = any(pair == (tokenize.STRING, tokenize.STRING) for pair in pairwise(kinds))
    return value if isinstance(value, list | dict) and not glued else text
