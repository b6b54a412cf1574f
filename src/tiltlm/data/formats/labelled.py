"""Single answers, with a label as KTO learns from, or as they are, to be imitated: which columns hold what."""

from __future__ import annotations

from collections.abc import Mapping

from tiltlm.data.examples import Message, Text
from tiltlm.data.files.raw_rows import UNREADABLE, kind_of
from tiltlm.data.formats.context import introduced, question, tools_field, tools_within
from tiltlm.data.formats.fields import Fields, RowError, as_text, field, is_empty, look, plain
from tiltlm.data.formats.messages import Chat, as_answer, chat_field
from tiltlm.data.formats.notation import holds_messages, is_open_chat
from tiltlm.data.formats.pairing import Parts, answered
from tiltlm.objectives.interface import CHOSEN, REJECTED

# What a label may be, in small letters with `_` for blanks and dashes.
LABELS = {
    **dict.fromkeys(("true", "1", "desirable", "good", "chosen", "preferred", "accepted", "positive"), CHOSEN),
    **dict.fromkeys(("thumbs_up", "up", "liked"), CHOSEN),
    **dict.fromkeys(("false", "0", "undesirable", "bad", "rejected", "dispreferred", "negative"), REJECTED),
    **dict.fromkeys(("thumbs_down", "down", "disliked"), REJECTED),
}
# The columns that may hold the label; of the others true or 1 says that the answer is undesirable.
LABEL_COLUMNS = ("label", "labels", "desirable", "is_desirable", "kto_tag", "thumbs_up")
TURNED_COLUMNS = ("undesirable", "is_undesirable", "thumbs_down")
COMPLETION_COLUMNS = ("completion", "response", "answer", "output")
# The columns that may hold the prompt as text, and whether that is what a user says.
_PROMPTS = {"prompt": False, "instruction": True, "question": True, "input": True}
# The columns that may hold it as messages, or a whole chat whose last turn is the answer.
_CHATS = ("prompt", "messages", "conversations", "context")


def label_of(value: object, turned: bool = False) -> int | None:
    """CHOSEN or REJECTED; None where the label is not understood.

    turned: the column tells whether an answer is undesirable: it is true or false.
    """
    if not isinstance(value, bool | int | float | str):
        return None
    label = LABELS.get(plain(value).replace(" ", "_").replace("-", "_"))
    if not turned or label is None:
        return label
    yes_or_no = plain(value) in ("true", "false", "1", "0")
    return (REJECTED if label == CHOSEN else CHOSEN) if yes_or_no else None


def is_labelled(fields: Mapping[str, object]) -> bool:
    """Whether a row has a prompt, one answer, and a label that is understood."""
    understood = any(
        label_of(look(fields, column), column in TURNED_COLUMNS) is not None
        for column in (*LABEL_COLUMNS, *TURNED_COLUMNS)
    )
    return understood and _is_answered(fields)


def is_demonstration(fields: Mapping[str, object]) -> bool:
    """Whether a row has a prompt and one answer, no label, and nothing that another answer may be."""
    labels = any(not is_empty(look(fields, column)) for column in (*LABEL_COLUMNS, *TURNED_COLUMNS))
    sides = any("reject" in name.lower() or "chosen" in name.lower() for name in fields)
    answers = [
        name
        for name, value in fields.items()
        if any(word in name.lower() for word in COMPLETION_COLUMNS)
        and (holds_messages(value) or (isinstance(value, str) and not is_empty(value)))
    ]
    return not labels and not sides and len(answers) < 2 and _is_answered(fields)


def _is_answered(fields: Mapping[str, object]) -> bool:
    """Whether there are a prompt and one answer."""
    beside = _prompt_column(fields) is not None and _completion_column(fields) is not None
    return beside or _whole_chat(fields) is not None


def labelled(fields: Fields, always_chats: bool = False) -> list[Parts]:
    """One answer to a prompt with its label. Text is joined as it stands, but for what is a user's turn by its name.

    always_chats: a `prompt` that is text is what a user says, too.
    """
    label = _label(fields)
    prompt, completion, tools = _texts(fields, always_chats)
    return [Parts(prompt, (completion,), (label,), tools)]


def demonstration(fields: Fields, always_chats: bool = False) -> list[Parts]:
    """One answer to a prompt, to be imitated; of a whole chat the last turn. Text as for `labelled`."""
    prompt, completion, tools = _texts(fields, always_chats)
    return [Parts(prompt, (completion,), (CHOSEN,), tools)]


def _label(fields: Fields) -> int:
    """What the columns of labels say, which must be one thing."""
    said: dict[str, int] = {}
    for column in (*LABEL_COLUMNS, *TURNED_COLUMNS):
        value = fields.look(column)
        if is_empty(value) or (isinstance(value, float) and value != value):
            continue
        label = label_of(fields[column], column in TURNED_COLUMNS)
        if label is None:
            known = ", ".join(LABELS)
            raise RowError("label not known", f"`{column}` is {value!r:.40}; known are {known}")
        said[column] = label
    if not said:
        raise RowError("no label", f"none of {', '.join((*LABEL_COLUMNS, *TURNED_COLUMNS))} says anything")
    if len(set(said.values())) > 1:
        raise RowError("label not known", f"{' and '.join(f'`{column}`' for column in said)} say opposite things")
    return next(iter(said.values()))


def _texts(fields: Fields, always_chats: bool) -> tuple[Text, Text, str | None]:
    """The prompt, the completion and the tools."""
    chat = _whole_chat(fields)
    if chat is not None:
        tools = tools_field(fields) or tools_within(fields, chat)
        whole = chat_field(fields, chat)
        return _chat(introduced(fields, whole[:-1]), whole[-1:], chat, tools)
    column, answer = _prompt_column(fields) or "prompt", _completion_column(fields) or "completion"
    value, said = field(fields, column), field(fields, answer)
    if holds_messages(value):
        tools = tools_field(fields) or tools_within(fields, column)
        asked = introduced(fields, chat_field(fields, column))
        return _chat(asked, as_answer(said, f"`{answer}`", fields), answer, tools)
    if not isinstance(value, str):
        raise RowError(UNREADABLE, f"`{column}` is {kind_of(value)}, not text or a list of messages")
    if _PROMPTS[column] or always_chats or holds_messages(said):
        tools = tools_field(fields)
        return _chat(question(fields, (column,)), as_answer(said, f"`{answer}`", fields), answer, tools)
    return as_text(value, f"`{column}`"), as_text(said, f"`{answer}`"), None


def _chat(
    prompt: Chat, completion: tuple[Message, ...], column: str, tools: str | None
) -> tuple[Text, Text, str | None]:
    prompt, (alone,) = answered(prompt, {column: completion})
    return prompt, alone, tools


def _whole_chat(fields: Mapping[str, object]) -> str | None:
    """The column of a chat whose last turn is the answer."""
    column = _chat_column(fields)
    return column if column is not None and column != "prompt" and not is_open_chat(look(fields, column)) else None


def _chat_column(fields: Mapping[str, object]) -> str | None:
    return next((column for column in _CHATS if holds_messages(look(fields, column))), None)


def _prompt_column(fields: Mapping[str, object]) -> str | None:
    texts = (column for column in _PROMPTS if isinstance(look(fields, column), str))
    return _chat_column(fields) or next((column for column in texts if not is_empty(look(fields, column))), None)


def _completion_column(fields: Mapping[str, object]) -> str | None:
    values = ((column, look(fields, column)) for column in COMPLETION_COLUMNS)
    return next((column for column, value in values if isinstance(value, str) or holds_messages(value)), None)
