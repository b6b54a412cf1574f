"""Lists and objects that stand in the data as text: JSON's, or Python's, which is all that a CSV cell can hold."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from itertools import pairwise

_MESSAGE_KEYS = ("role", "from", "content", "value", "tool_calls", "function_call", "parts")
# A list of messages, or one, in anybody's notation: numpy's has no commas, and JSON may be cut off.
_LOOKS_LIKE_MESSAGES = re.compile(
    r"\s*(?:array\(\s*)?(?:[\[(]\s*)?\{\s*['\"](?:role|from|content|value|messages)['\"]\s*:"
)

_LIST_OF_TEXTS = re.compile(r"\s*(?:array\(\s*)?\[\s*['\"].*['\"]\s*(?:,\s*)?\].{0,20}", re.DOTALL)


def decoded(value: object) -> object:
    """A list or object, given as one or as its text in JSON or Python; any other value as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return _python_literal(value)


def unwrapped(value: object) -> object:
    """The list of messages within a value: an object that holds it as `messages`, or one of lists by key, as the
    library datasets writes a sequence of objects; any other value as it is.
    """
    value = decoded(value)
    if not isinstance(value, dict):
        return value
    if "role" not in value and "messages" in value:
        return unwrapped(value["messages"])
    lists = [item for item in value.values() if isinstance(item, list)]
    if isinstance(value.get("role", value.get("from")), list) and len({len(item) for item in lists}) == 1:
        columns = {key: item for key, item in value.items() if isinstance(item, list)}
        return [dict(zip(columns, items, strict=True)) for items in zip(*columns.values(), strict=True)]
    return value


def holds_messages(value: object) -> bool:
    """Whether this is a chat: a list of messages, one message, or what `unwrapped` takes them out of."""
    value = unwrapped(value)
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, dict):
        return False
    return ("role" in first or "from" in first) and any(key in first for key in _MESSAGE_KEYS[2:])


def is_open_chat(value: object) -> bool:
    """Whether these are messages that wait for an answer."""
    value = decoded(value)
    if not isinstance(value, list) or not holds_messages(value):
        return False
    last = value[-1]
    speaker = str(last.get("role", last.get("from"))).lower() if isinstance(last, dict) else ""
    return speaker not in ("assistant", "gpt", "model", "bot", "chatgpt")


def is_broken_messages(text: str) -> bool:
    """Whether a text was a list of messages once, and cannot be read as one now."""
    return _LOOKS_LIKE_MESSAGES.match(text) is not None and isinstance(decoded(text), str)


def is_list_notation(text: str) -> bool:
    """Whether a text is a list of texts as Python or numpy prints it, and not JSON."""
    return _LIST_OF_TEXTS.fullmatch(text) is not None and not _is_json(text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _python_literal(text: str) -> object:
    """The value of Python's notation, or the text where it is none.

    Two texts side by side without a comma are one to Python; in numpy's notation they are two, so they are refused.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python's compiler thinks of someone's data
            value = ast.literal_eval(text.strip())
        tokens = tokenize.generate_tokens(io.StringIO(text.strip()).readline)
        kinds = [token.type for token in tokens if token.type not in (tokenize.NL, tokenize.NEWLINE)]
    except (ValueError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError):
        return text
    glued = any(pair == (tokenize.STRING, tokenize.STRING) for pair in pairwise(kinds))
    return value if isinstance(value, list | dict) and not glued else text
