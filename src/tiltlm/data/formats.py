"""How rows are laid out: one table of formats, each recognised by its columns and converted by one function."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tiltlm.data.fields import RowError, completion_field, field, holds_messages, messages_field, text_field
from tiltlm.data.ranking import RANKED_PAIRS, RankedPairs, all_pairs, list_column, ranked_texts
from tiltlm.data.reading import UNREADABLE, Row, kind_of
from tiltlm.errors import ConfigError, DataError
from tiltlm.records import Message, PreferencePair, Text

USER_HEADER = "\n\nHuman:"
ASSISTANT_HEADER = "\n\nAssistant:"

Fields = Mapping[str, object]
Convert = Callable[[Row], list[PreferencePair]]


@dataclass(frozen=True, slots=True)
class Format:
    """expects: the columns, in words. recognise: whether a row has them. convert: its pairs, or a RowError."""

    expects: str
    recognise: Callable[[Fields], bool]
    convert: Convert


def recognise_format(rows: Sequence[Row]) -> tuple[str, str]:
    """The format that most of these rows have, and why in words.

    Raises:
        DataError: no format or more than one fits; it lists the columns found and those expected.
    """
    votes = {name: sum(format.recognise(row.fields) for row in rows) for name, format in FORMATS.items()}
    most = max(votes.values())
    winners = [name for name, count in votes.items() if count == most]
    if most and len(winners) == 1:
        return winners[0], f"recognised in {most} of the first {len(rows)} rows: {FORMATS[winners[0]].expects}"
    columns = dict.fromkeys(column for row in rows for column in row.fields)
    found = ", ".join(f"`{column}`" for column in columns) or "none"
    expected = "\n".join(f"  {name}: {format.expects}" for name, format in FORMATS.items())
    problem = f"the rows fit several formats: {', '.join(winners)}" if most else "the rows fit no format"
    raise DataError(f"{problem}. Columns found: {found}. Set data.format, or rename the columns to one of\n{expected}")


def conversion(name: str, ranked_pairs: RankedPairs) -> Convert:
    """The function that makes a row of this format into pairs.

    Raises:
        ConfigError: `ranked_pairs` is set, and has no effect on this format.
    """
    if name == "ranked":
        return partial(_from_ranked, choose=RANKED_PAIRS[ranked_pairs])
    if ranked_pairs != "all":
        raise ConfigError(f"data.ranked_pairs has no effect on the format `{name}`: remove it.")
    return FORMATS[name].convert


def require_usable(pair: PreferencePair) -> None:
    """Raises a RowError for a pair that nothing can be learnt from."""
    for part, text in (("prompt", pair.prompt), ("chosen", pair.chosen), ("rejected", pair.rejected)):
        try:
            joined_text(text).encode("utf-8")
        except UnicodeEncodeError as error:
            raise RowError(UNREADABLE, f"`{part}` holds half a character: {error.reason}") from error
        if not joined_text(text).strip():
            raise RowError("empty prompt" if part == "prompt" else "empty completion", f"`{part}` holds no text")
    if pair.chosen == pair.rejected:
        raise RowError("identical completions", "`chosen` and `rejected` are the same")


def joined_text(text: Text) -> str:
    """The words of a text or of all its messages, without roles."""
    return text if isinstance(text, str) else "".join(message.content for message in text)


def _from_preference(row: Row) -> list[PreferencePair]:
    prompt, chosen, rejected = (text_field(row.fields, column) for column in ("prompt", "chosen", "rejected"))
    return [PreferencePair(row.id, prompt, chosen, rejected)]


def _from_dialogue(row: Row) -> list[PreferencePair]:
    """Anthropic's HH layout (arXiv 2204.05862): the prompt ends with the last assistant header that both share."""
    chosen, rejected = (text_field(row.fields, column) for column in ("chosen", "rejected"))
    header = chosen.rfind(ASSISTANT_HEADER, 0, _shared_length(chosen, rejected))
    if header < 0:
        raise RowError("dialogues share no prompt", f"they differ before any {ASSISTANT_HEADER!r}")
    cut = header + len(ASSISTANT_HEADER)
    return [PreferencePair(row.id, chosen[:cut], chosen[cut:].rstrip(), rejected[cut:].rstrip())]


def _from_chat(row: Row) -> list[PreferencePair]:
    chosen, rejected = (completion_field(row.fields, column) for column in ("chosen", "rejected"))
    prompt = row.fields.get("prompt")
    if holds_messages(prompt):
        return [_chat_pair(row.id, messages_field(row.fields, "prompt"), chosen, rejected)]
    if isinstance(prompt, str) and all(messages and messages[0].role == "assistant" for messages in (chosen, rejected)):
        return [_chat_pair(row.id, (Message("user", prompt),), chosen, rejected)]
    return [_implicit_chat_pair(row.id, chosen, rejected)]


def _from_instruction(row: Row) -> list[PreferencePair]:
    """Alpaca's layout: the user's message is the instruction, and the input below it if there is one."""
    given = text_field(row.fields, "input") if row.fields.get("input") is not None else ""
    request = text_field(row.fields, "instruction") + (f"\n\n{given}" if given.strip() else "")
    chosen, rejected = (Message("assistant", text_field(row.fields, column)) for column in ("chosen", "rejected"))
    return [PreferencePair(row.id, (Message("user", request),), (chosen,), (rejected,))]


def _from_sharegpt(row: Row) -> list[PreferencePair]:
    chosen, rejected = (completion_field(row.fields, column) for column in ("chosen", "rejected"))
    return [_chat_pair(row.id, messages_field(row.fields, "conversations"), chosen, rejected)]


def _from_ranked(row: Row, choose: Callable[[Sequence[float]], list[tuple[int, int]]]) -> list[PreferencePair]:
    texts, merits = ranked_texts(row.fields)
    prompt = field(row.fields, "prompt")
    completions: Sequence[Text] = texts
    if holds_messages(prompt):
        prompt = messages_field(row.fields, "prompt")
        completions = [(Message("assistant", text),) for text in texts]
    elif not isinstance(prompt, str):
        raise RowError(UNREADABLE, f"`prompt` is {kind_of(prompt)}, not text or a list of messages")
    return [
        PreferencePair(f"{row.id}#{better + 1}>{worse + 1}", prompt, completions[better], completions[worse])
        for better, worse in choose(merits)
    ]


def _chat_pair(
    place: str, prompt: tuple[Message, ...], chosen: tuple[Message, ...], rejected: tuple[Message, ...]
) -> PreferencePair:
    """The pair of an explicit prompt and completions, which may be whole chats that begin with the prompt."""
    chosen, rejected = (
        messages[len(prompt) :] if messages[: len(prompt)] == prompt else messages for messages in (chosen, rejected)
    )
    if prompt and prompt[-1].role == "assistant":
        raise RowError("turns out of order", "the prompt ends with an assistant turn")
    for column, messages in (("chosen", chosen), ("rejected", rejected)):
        if messages and messages[0].role != "assistant":
            raise RowError("turns out of order", f"`{column}` begins with a `{messages[0].role}` turn")
    return PreferencePair(place, prompt, chosen, rejected)


def _implicit_chat_pair(place: str, chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> PreferencePair:
    """The pair of two whole chats: the prompt ends before the last assistant turn up to which they are the same."""
    for cut in range(min(_shared_length(chosen, rejected), len(chosen) - 1, len(rejected) - 1), 0, -1):
        answered = chosen[cut].role == rejected[cut].role == "assistant"
        if answered and chosen[cut - 1].role != "assistant":
            return PreferencePair(place, chosen[:cut], chosen[cut:], rejected[cut:])
    raise RowError("dialogues share no prompt", "the chats differ before any assistant turn")


def _shared_length(a: Sequence[object], b: Sequence[object]) -> int:
    """How many first items two sequences share."""
    lengths = range(1, min(len(a), len(b)) + 1)
    return bisect_left(lengths, True, key=lambda length: a[:length] != b[:length])


def _has_texts(fields: Fields, *columns: str) -> bool:
    """Whether these columns hold text that is not the JSON text of messages."""
    return all(isinstance(fields.get(column), str) and not holds_messages(fields[column]) for column in columns)


def _is_preference(fields: Fields) -> bool:
    return _has_texts(fields, "prompt", "chosen", "rejected")


def _is_dialogue(fields: Fields) -> bool:
    texts = [fields.get("chosen"), fields.get("rejected")]
    dialogues = all(isinstance(text, str) and ASSISTANT_HEADER in text for text in texts)
    return dialogues and fields.get("prompt") is None


def _is_chat(fields: Fields) -> bool:
    completions = [fields.get("chosen"), fields.get("rejected")]
    if holds_messages(fields.get("prompt")):
        return all(isinstance(completion, str | list | dict) for completion in completions)
    return all(map(holds_messages, completions)) and not holds_messages(fields.get("conversations"))


def _is_instruction(fields: Fields) -> bool:
    return _has_texts(fields, "instruction", "chosen", "rejected")


def _is_sharegpt(fields: Fields) -> bool:
    return holds_messages(fields.get("conversations")) and None not in (fields.get("chosen"), fields.get("rejected"))


def _is_ranked(fields: Fields) -> bool:
    return list_column(fields) is not None and fields.get("prompt") is not None and "chosen" not in fields


FORMATS: dict[str, Format] = {
    "preference": Format(
        "`prompt`, `chosen` and `rejected` are text, joined as they stand", _is_preference, _from_preference
    ),
    "dialogue": Format(
        r"`chosen` and `rejected` are dialogues of `\n\nHuman:` and `\n\nAssistant:` turns, and there is no `prompt`",
        _is_dialogue,
        _from_dialogue,
    ),
    "chat": Format(
        "`chosen` and `rejected` are lists of messages {role, content}; so is `prompt`, if there is one",
        _is_chat,
        _from_chat,
    ),
    "instruction": Format(
        "`instruction`, `chosen`, `rejected`, and perhaps `input`, are text", _is_instruction, _from_instruction
    ),
    "sharegpt": Format(
        "`conversations` is a list of {from, value}; `chosen` and `rejected` are messages or text",
        _is_sharegpt,
        _from_sharegpt,
    ),
    "ranked": Format(
        "`prompt`, and `completions`, `responses` or `answers`: best first, or with `scores`, `rewards` or `ranks`",
        _is_ranked,
        partial(_from_ranked, choose=all_pairs),
    ),
}
