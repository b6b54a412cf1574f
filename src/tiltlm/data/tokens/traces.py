"""What a chat said and the template did not write: found by asking the template, and by looking for the text."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from tiltlm.data.examples import Message
from tiltlm.data.tokens.templates import ChatTemplate, TemplateRefusalError

REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
WHOLE, REASONING, PART = "the text", "the reasoning", "a part of the text"
CALL_KEYS = ("tool_calls", "function_call")
_BREAKS = re.compile(r"</?think(?:ing)?>|\n")
_MARK = "\ue000{}\ue000"
# A message's number and which part of it: `content` or a further key. The tools of a chat have no message.
_Part = tuple[int, str]
_TOOLS: _Part = (-1, "tools")


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that a chat said and that its text does not hold.

    message: its number in the chat; None for the tools.
    key: `content`, a further key of the message, or `tools`.
    what: in words, the same for all chats that lose the same.
    """

    message: int | None
    key: str
    what: str


class TraceFinder:
    """Compares chats with what the template makes of them."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._unseen: dict[object, frozenset[_Part]] = {}

    def losses(self, messages: Sequence[Message], tools: str | None, texts: Sequence[str]) -> list[Loss]:
        """What is lost of a chat.

        texts: for each message the text in which it should be found: all of it, or the completion's.
        """
        unseen = self._unseen_parts(messages, tools)
        losses = [Loss(None, "tools", "the tools")] if _TOOLS in unseen else []
        for number, (message, text) in enumerate(zip(messages, texts, strict=True)):
            if (number, "content") in unseen:
                losses.append(Loss(number, "content", f"{WHOLE} of {message.role} messages"))
            elif missing := missing_of_text(message.content, text):
                # The template writes some of it.
                missing = missing if missing == REASONING else PART
                losses.append(Loss(number, "content", f"{missing} of {message.role} messages"))
            for key, value in message.further:
                if (number, key) in unseen or not _further_is_found(key, json.loads(value), text):
                    losses.append(Loss(number, key, f"`{key}` of {message.role} messages"))
        return losses

    def _unseen_parts(self, messages: Sequence[Message], tools: str | None) -> frozenset[_Part]:
        """Parts without which the template writes the same. Asked once for all chats laid out alike."""
        layout = (tuple((m.role, bool(m.content.strip()), _keys(m)) for m in messages), tools is not None)
        if layout not in self._unseen:
            self._unseen[layout] = self._ask(list(messages), tools)
        return self._unseen[layout]

    def _ask(self, messages: list[Message], tools: str | None) -> frozenset[_Part]:
        unseen: set[_Part] = set()
        written = self._render(messages, tools)
        # Marks stand at both ends of a text, as some templates cut its beginning, and others its end.
        marks = [_MARK.format(number) for number in range(len(messages))]
        marked = [replace(m, content=f"{mark}{m.content}{mark}") for m, mark in zip(messages, marks, strict=True)]
        with_marks = self._render(marked, tools)
        for number, message in enumerate(messages):
            if with_marks is not None and message.content.strip() and marks[number] not in with_marks:
                unseen.add((number, "content"))
            for key in _keys(message):
                further = tuple(item for item in message.further if item[0] != key)
                less = [*messages[:number], replace(message, further=further), *messages[number + 1 :]]
                if self._render(less, tools) == written:
                    unseen.add((number, key))
        if tools is not None and json.loads(tools) and self._render(messages, None) == written:
            unseen.add(_TOOLS)
        return frozenset(unseen)

    def _render(self, messages: Sequence[Message], tools: str | None) -> str | None:
        try:
            return self._template.render(messages, tools)
        except TemplateRefusalError:
            return None  # it takes notice of what was changed


def is_of_an_answer(loss: Loss) -> bool:
    """Whether what is lost would be trained on: text, reasoning or a tool call, not a name or an id."""
    return loss.key in ("content", *REASONING_KEYS, *CALL_KEYS)


def _keys(message: Message) -> tuple[str, ...]:
    return tuple(name for name, value in message.further if json.loads(value) not in (None, "", [], {}))


def _squeezed_forms(text: str) -> str:
    """A text to look for pieces in: as it is, and without HTML's escapes."""
    return _squeezed(text) + ("\n" + _squeezed(html.unescape(text)) if "&" in text else "")


def missing_of_text(content: str, text: str) -> str:
    """Which part of a message's text is not in the text, in words; empty if all is.

    White space, letter case and escapes do not count: templates trim, break lines, and write tool results as JSON.
    """
    if content.strip() in text:
        return ""
    squeezed = _squeezed_forms(text)
    found = [_is_in(piece, squeezed) for piece in _BREAKS.split(content) if piece.strip()]
    if all(found):
        return ""
    if not any(found):
        return WHOLE
    head, tag, _ = content.rpartition("</think>")
    reasoning = [_is_in(piece, squeezed) for piece in _BREAKS.split(head) if piece.strip()]
    # All that is missing stands before the answer proper.
    return REASONING if tag and found.count(False) == reasoning.count(False) else PART


def _further_is_found(key: str, value: object, text: str) -> bool:
    """Whether reasoning and calls are written whole. Of calls, names and arguments count; ids and types do not."""
    if key in REASONING_KEYS and isinstance(value, str):
        return not missing_of_text(value, text)
    if key in CALL_KEYS:
        squeezed = _squeezed_forms(text)
        return all(_is_in(leaf, squeezed) for leaf in _call_texts(value))
    return True


def _call_texts(value: object) -> Iterator[str]:
    """The names and the arguments' texts and numbers in tool calls."""
    if isinstance(value, list):
        for item in value:
            yield from _call_texts(item)
    elif isinstance(value, dict):
        called = value.get("function", value)
        if isinstance(called, dict):
            arguments = called.get("arguments")
            if isinstance(arguments, str):
                with suppress(ValueError):
                    arguments = json.loads(arguments)
            yield from _leaves([called.get("name"), arguments])


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield from (line for line in value.split("\n") if line.strip())
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(value)


def _is_in(piece: str, squeezed: str) -> bool:
    escaped = (json.dumps(piece.strip(), ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
    forms = [piece, *escaped]
    forms.append(json.dumps(forms[1], ensure_ascii=False)[1:-1])  # JSON text within JSON
    return any(_squeezed(form) in squeezed for form in forms)


def _squeezed(text: str) -> str:
    return "".join(text.split()).casefold()
