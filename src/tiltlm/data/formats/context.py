"""What precedes an answer: a question, what the system says, earlier turns, tools."""

from __future__ import annotations

from collections.abc import Sequence

from tiltlm.data.examples import Message
from tiltlm.data.formats.fields import Fields, as_text, field, is_empty, text_field
from tiltlm.data.formats.messages import Chat, as_chat, as_tools, turns
from tiltlm.data.formats.notation import decoded, holds_messages

# Columns that may hold, as text, what a user asks.
QUESTIONS = ("prompt", "instruction", "question", "input")


def question(fields: Fields, columns: Sequence[str]) -> Chat:
    """What a user asks; Alpaca's `input` stands below its `instruction`."""
    column = next((column for column in columns if not is_empty(fields.look(column))), columns[0])
    request = text_field(fields, column)
    if column == "instruction" and not is_empty(fields.look("input")):
        request += f"\n\n{text_field(fields, 'input')}"
    return introduced(fields, (Message("user", request),))


def introduced(fields: Fields, prompt: Chat) -> Chat:
    """The prompt after what `system` and `history` say."""
    if isinstance(decoded(fields.look("history")), list) and not is_empty(decoded(fields.look("history"))):
        prompt = (*turns(field(fields, "history"), "`history`", fields), *prompt)
    system = fields.look("system")
    if is_empty(system):
        return prompt
    said = as_chat(system, "`system`", fields) if holds_messages(system) else _system_turn(system)
    if not any(message.role in ("system", "developer") for message in prompt):
        fields["system"]
        return (*said, *prompt)
    if prompt[: len(said)] == said:
        fields["system"]
    return prompt


def _system_turn(value: object) -> Chat:
    return (Message("system", as_text(value, "`system`")),)


def tools_field(fields: Fields) -> str | None:
    return as_tools(fields["tools"], "`tools`") if not is_empty(fields.look("tools")) else None


def tools_within(fields: Fields, column: str) -> str | None:
    """The tools of an object {messages, tools}."""
    value = decoded(fields.look(column))
    return as_tools(value["tools"], f"`{column}.tools`") if isinstance(value, dict) and "tools" in value else None
