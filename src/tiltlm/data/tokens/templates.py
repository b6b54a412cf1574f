"""Chats to text, by the model's chat template or, where it has none, as plain dialogues."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerFast

from tiltlm.data.examples import Message
from tiltlm.errors import ConfigError

PLAIN_HEADER = "\n\nAssistant:"
"""What asks for an answer where there is no chat template."""

# What a template's own code may raise: its `raise_exception`, what it does not know, and Python's own errors in it.
_FAILURES = (
    TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)
_LONGEST = 10_000_000
"""Characters that a template may add to a chat: far more than any does, and few enough to go on with."""
LONGEST_PROBE = 20.0
"""Seconds that a template may take for a chat of one message."""
LARGEST_PROBE = 1_000_000
"""Characters that it may write for one."""
_ROLE_NAMES = {"user": "Human", "assistant": "Assistant", "system": "System"}
# A text of a private-use character, which no data and no template holds.
PROBE = "\ue000probe\ue000"


class TemplateRefusalError(Exception):
    """The chat template refused a chat. Its words are the exception's; it never reaches the user as an exception."""


class ChatTemplate:
    """Renders chats as the model's tokenizer is told to.

    A template is a program of whoever made the model. transformers runs it in Jinja's immutable sandbox: it reaches
    neither files nor Python's own objects, and changes nothing it is given; a single loop has 100,000 turns at most.
    How long it takes is not bounded.

    Attributes:
        exists: False where the tokenizer has no template, and chats become plain dialogues.
        name: what writes the chats, in words.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self.exists = tokenizer.chat_template is not None
        self.name = "chat template" if self.exists else "plain dialogue that stands in for a chat template"

    def render(self, messages: Sequence[Message], tools: str | None = None, ask: bool = False) -> str:
        """The chat as text.

        tools: JSON text of the list of tools. ask: whether the text ends by asking for an answer.

        Raises:
            TemplateRefusalError: the template does not take this chat, with its words.
            ConfigError: the tokenizer has several templates, and none is the default.
        """
        if not self.exists:
            return _plain_dialogue(messages) + (PLAIN_HEADER if ask else "")
        self._require_choice()
        try:
            return self._apply([_as_object(message, self._takes_parts) for message in messages], tools, ask)
        except _FAILURES as error:
            as_text = [_with_arguments_as_text(_as_object(message, self._takes_parts)) for message in messages]
            if as_text == [_as_object(message, self._takes_parts) for message in messages]:
                raise TemplateRefusalError(_words(error)) from error
        # Some templates join a call's arguments to a string, so they take them as JSON text alone.
        try:
            return self._apply(as_text, tools, ask)
        except _FAILURES as error:
            raise TemplateRefusalError(_words(error)) from error

    def _apply(self, chat: list[dict[str, Any]], tools: str | None, ask: bool) -> str:
        text = self._tokenizer.apply_chat_template(
            chat, tools=json.loads(tools) if tools else None, tokenize=False, add_generation_prompt=ask
        )
        assert isinstance(text, str)
        if len(text) > _LONGEST + 10 * len(json.dumps(chat, ensure_ascii=False)):
            raise TemplateRefusalError(f"it makes {len(text):,} characters of one chat")
        return text

    def require_works(self) -> None:
        """Refuses a template that cannot be read, or that makes far too much of a chat of one message.

        Raises:
            ConfigError: it cannot be used; the message says why, and how another is given.
        """
        if not self.exists:
            return
        self._require_choice()
        made: list[str | Exception] = []

        def probe() -> None:
            try:
                made.append(self._apply([{"role": "user", "content": PROBE}], None, True))
            except _FAILURES as error:  # a refusal of this chat says nothing of others
                made.append(error if isinstance(error, TemplateSyntaxError) else "")

        # A loop within a template can be waited for, and not be ended.
        thread = threading.Thread(target=probe, daemon=True)
        thread.start()
        thread.join(LONGEST_PROBE)
        wrong = f"it takes more than {LONGEST_PROBE:g} seconds to write a chat of one message" if not made else ""
        if made and isinstance(made[0], TemplateSyntaxError):
            wrong = f"line {made[0].lineno}: {_words(made[0])}"
        elif made and len(str(made[0])) > LARGEST_PROBE:
            wrong = f"it writes {len(str(made[0])):,} characters for a chat of one message"
        if wrong:
            raise ConfigError(
                f"the model's chat template cannot be used: {wrong}. Mend it, or give another by "
                "--model.chat_template FILE."
            )

    @property
    def is_chosen(self) -> bool:
        """Whether it is known which template is meant: there is one at most, or a default."""
        templates = self._tokenizer.chat_template
        return not isinstance(templates, dict) or "default" in templates

    def _require_choice(self) -> None:
        if not self.is_chosen:
            templates = self._tokenizer.chat_template
            raise ConfigError(
                f"the model has several chat templates ({', '.join(sorted(templates))}), and none is its default: name "
                "one with model.chat_template."
            )

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether the template finds a message's text only in a list of parts, as those of some vision models do."""
        if not self.exists:
            return False
        found = []
        for content in (PROBE, [{"type": "text", "text": PROBE}]):
            try:
                found.append(PROBE in self._apply([{"role": "user", "content": content}], None, False))
            except _FAILURES:
                found.append(False)
        return found == [False, True]


def choose_template(tokenizer: PreTrainedTokenizerFast, choice: str | None) -> None:
    """Makes the tokenizer use the template of this name, or the one in this file; None leaves its own.

    Raises:
        ConfigError: it is neither.
    """
    if choice is None:
        return
    named = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
    path = Path(choice).expanduser()
    if choice in named:
        tokenizer.chat_template = named[choice]
    elif path.is_file():
        try:
            tokenizer.chat_template = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"model.chat_template: the file {path} cannot be read: {error}.") from error
    else:
        there = f"it has: {', '.join(sorted(named))}" if named else "it has no named ones"
        raise ConfigError(
            f"model.chat_template is `{choice}`, which is neither a file nor a template of the tokenizer: {there}."
        )


def generation_header(template: ChatTemplate) -> str:
    """What the template writes to ask for an answer, such as `<|im_start|>assistant\\n`; empty where it has nothing."""
    if not template.is_chosen:  # text needs none
        return ""
    probe = (Message("user", PROBE),)
    try:
        before, asked = (template.render(probe, ask=ask) for ask in (False, True))
    except TemplateRefusalError:
        return ""
    return asked[len(shared_start(before, asked)) :]


def shared_start(first: str, second: str) -> str:
    """The longest text that both begin with."""
    if second.startswith(first):
        return first
    pairs = enumerate(zip(first, second, strict=False))
    return first[: next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))]


def _as_object(message: Message, in_parts: bool) -> dict[str, Any]:
    """The message as chat templates take it."""
    content: object = [{"type": "text", "text": message.content}] if in_parts else message.content
    further = {name: json.loads(value) for name, value in message.further}
    if "tool_calls" in further:
        further["tool_calls"] = _with_arguments(further["tool_calls"], _parsed)
    return {"role": message.role, "content": content, **further}


def _with_arguments_as_text(message: dict[str, Any]) -> dict[str, Any]:
    if "tool_calls" not in message:
        return message
    return message | {"tool_calls": _with_arguments(message["tool_calls"], _unparsed)}


def _with_arguments(calls: object, change: Callable[[object], object]) -> object:
    """Tool calls with each call's arguments changed; what is not laid out as calls are stays as it is."""
    if not isinstance(calls, list):
        return calls
    changed: list[object] = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(call, dict) and isinstance(function, dict) and "arguments" in function:
            changed.append(call | {"function": function | {"arguments": change(function["arguments"])}})
        else:
            changed.append(call)
    return changed


def _parsed(arguments: object) -> object:
    """OpenAI writes arguments as JSON text; most templates take objects, as transformers' documentation has them."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments)
    except ValueError:
        return arguments
    return value if isinstance(value, dict) else arguments


def _unparsed(arguments: object) -> object:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _words(error: Exception) -> str:
    words = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return words if words and isinstance(error, TemplateError) else f"{type(error).__name__}: {words}"


def _plain_dialogue(messages: Sequence[Message]) -> str:
    """Turns in the style of Anthropic's HH data, for models without a chat template."""
    return "".join(f"\n\n{_ROLE_NAMES.get(m.role, m.role.capitalize())}: {m.content}" for m in messages)
