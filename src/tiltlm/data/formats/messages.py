"""Messages of a chat out of the layouts that people write them in."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tiltlm.data.examples import Message
from tiltlm.data.files.raw_rows import UNREADABLE, kind_of
from tiltlm.data.formats.fields import Fields, RowError, as_text, field, is_empty
from tiltlm.data.formats.notation import decoded, holds_messages, unwrapped

# Who speaks, by other names than those that chat templates know.
_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "observation": "tool",
    "tool_response": "tool",
}
_KNOWN_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "ipython", *_ROLES.values()})
# Speakers whose words are a call of a tool: {name, arguments}, or a list of them, as JSON text.
_CALLERS = frozenset({"function_call", "tool_call"})
# What chat templates take of a message besides role and content.
_FURTHER = frozenset(
    {
        "tool_calls",
        "tool_call_id",
        "function_call",
        "function_calls",
        "functions",
        "name",
        "reasoning_content",
        "reasoning",
        "thinking",
        "tool_plan",
        "tool_responses",
        "citations",
        "documents",
        "channel",
        "recipient",
    }
)
_CALLS = ("tool_calls", "function_call", "function_calls")
_CONTENTS = ("content", "value", "parts")

Chat = tuple[Message, ...]


def chat_field(fields: Fields, column: str) -> Chat:
    """The messages of a column that holds a list of them."""
    return as_chat(field(fields, column), f"`{column}`", fields)


def as_chat(value: object, where: str, fields: Fields) -> Chat:
    """The messages of a list of them, of one, or of an object that holds them as `messages`."""
    value = decoded(value)
    if isinstance(value, dict) and "role" not in value and "messages" in value:
        fields.ignored |= {f"{where.strip('`')}.{key}" for key in value if key not in ("messages", "tools")}
    value = unwrapped(value)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise RowError(UNREADABLE, f"{where} is {kind_of(value)}, not a list of messages")
    return tuple(_message(item, f"{where}, message {number}", fields) for number, item in enumerate(value, start=1))


def answers_field(fields: Fields, column: str) -> list[Chat]:
    """The completions of a column: what the assistant says as text or messages, or a list of several of those."""
    value = field(fields, column)
    items = decoded(value) if not isinstance(value, str) else value
    several = isinstance(items, list) and items and not holds_messages(items)
    if isinstance(items, list) and several:
        return [as_answer(item, f"`{column}`, item {number}", fields) for number, item in enumerate(items, start=1)]
    return [as_answer(value, f"`{column}`", fields)]


def as_answer(value: object, where: str, fields: Fields) -> Chat:
    """What the assistant says: text, a message, or several."""
    if isinstance(value, str) and not holds_messages(value):
        return (Message("assistant", as_text(value, where)),)
    return as_chat(value, where, fields)


def turns(value: object, where: str, fields: Fields) -> Chat:
    """Earlier turns: messages, or pairs of what the user and the assistant said."""
    value = decoded(value)
    if holds_messages(value):
        return as_chat(value, where, fields)
    if not isinstance(value, list):
        raise RowError(UNREADABLE, f"{where} is {kind_of(value)}, not a list of earlier turns")
    said: list[Message] = []
    for number, pair in enumerate(value, start=1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError(UNREADABLE, f"{where}, turn {number} is no pair of what the user and the assistant said")
        said += [Message(role, as_text(text, where)) for role, text in zip(("user", "assistant"), pair, strict=True)]
    return tuple(said)


def as_tools(value: object, where: str) -> str | None:
    """The JSON text of a list of tools; a bare function is put in the object that chat templates expect around it."""
    tools = decoded(value)
    if is_empty(tools):
        return None
    if isinstance(tools, dict):
        tools = [tools]
    if not isinstance(tools, list) or not all(isinstance(decoded(tool), dict) for tool in tools):
        raise RowError(UNREADABLE, f"{where} is {kind_of(tools)}, not a list of tools")
    return _json([_tool(decoded(tool)) for tool in tools], where)


def _tool(tool: object) -> object:
    bare = isinstance(tool, dict) and "name" in tool and "function" not in tool and "type" not in tool
    return {"type": "function", "function": tool} if bare else tool


def _message(value: object, where: str, fields: Fields) -> Message:
    value = decoded(value)
    if not isinstance(value, dict):
        raise RowError(UNREADABLE, f"{where} is {kind_of(value)}, not an object with `role` and `content`")
    speaker = "from" if "role" not in value and "from" in value else "role"
    said = _text(value, speaker, where)
    role = said.strip().lower()
    if role in _CALLERS:
        return Message("assistant", "", (("tool_calls", _calls(value, where)),))
    role = _ROLES.get(role, role if role in _KNOWN_ROLES else said)
    if speaker == "from" and role not in _KNOWN_ROLES:
        raise RowError(UNREADABLE, f"{where} is from `{said}`; known are {', '.join(sorted(_KNOWN_ROLES | {*_ROLES}))}")
    # Calls are lists of objects to chat templates, however they are stored.
    said_more = {key: decoded(item) if key in _CALLS else item for key, item in value.items() if key in _FURTHER}
    kept = {
        key: item
        for key, item in said_more.items()
        if item is not None and (isinstance(item, str) or not is_empty(item))
    }
    extra = value.keys() - {speaker, *_CONTENTS} - _FURTHER
    fields.ignored |= {f"message key `{key}`" for key in extra if not is_empty(value[key])}
    further = tuple(sorted((key, _json(item, where)) for key, item in kept.items()))
    return Message(role, _content(value, where, may_be_null=any(key in kept for key in _CALLS)), further)


def _content(message: Mapping[str, object], where: str, may_be_null: bool) -> str:
    key = next((key for key in _CONTENTS if message.get(key) is not None), None)
    if key is None:
        if may_be_null:
            return ""
        named = next((key for key in _CONTENTS if key in message), None)
        raise RowError(UNREADABLE, f"{where}: `{named or 'content'}` is {'null' if named else 'missing'}, not text")
    content = message[key]
    if isinstance(content, list):
        return "".join(_part(part, f"{where}, part {number}") for number, part in enumerate(content, start=1))
    if isinstance(content, str):
        return content
    raise RowError(UNREADABLE, f"{where}: `{key}` is {kind_of(content)}, not text")


def _part(part: object, where: str) -> str:
    """The text of a part of a message."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise RowError(UNREADABLE, f"{where} is {kind_of(part)}, not text")
    text = part.get("text") if part.get("text") is not None else part.get("value")
    kind = part.get("type") or next((key for key in part if key not in ("text", "value")), "text")
    if kind not in ("text", "input_text", "output_text") or not isinstance(text, str):
        raise RowError("not text alone", f"{where} is of the type `{kind}`, which is no text: it cannot be trained on")
    return text


def _calls(message: Mapping[str, object], where: str) -> str:
    """The calls of tools that a message of ShareGPT's consists of, as OpenAI writes them."""
    calls = decoded(_content(message, where, may_be_null=False))
    listed = calls if isinstance(calls, list) else [calls]
    if not all(isinstance(call, dict) and "name" in call for call in listed):
        raise RowError(UNREADABLE, f"{where} is a call of a tool, and no JSON with `name` and `arguments`")
    return _json([{"type": "function", "function": call} for call in listed], where)


def _text(message: Mapping[str, object], key: str, where: str) -> str:
    value = message.get(key)
    if not isinstance(value, str):
        raise RowError(UNREADABLE, f"{where}: `{key}` is {kind_of(value) if key in message else 'missing'}, not text")
    return value


def _json(value: object, where: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RowError(UNREADABLE, f"{where}: {error}") from error
