"""How rows are laid out: one table of formats, each recognised by its columns and converted by one layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tiltlm.data import layouts
from tiltlm.data.fields import Fields, RowError, is_empty
from tiltlm.data.notation import decoded, holds_messages
from tiltlm.data.ranking import LIST_COLUMNS, OrderError, RankedPairs, order_in_words, orders
from tiltlm.data.ratings import compare_ratings
from tiltlm.data.refusals import refusal
from tiltlm.data.rows import UNREADABLE, Row, kind_of
from tiltlm.errors import ConfigError, DataError
from tiltlm.records import PreferencePair, Text


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


def _is_open_chat(value: object) -> bool:
    """Whether these are messages that wait for an answer."""
    value = decoded(value)
    if not isinstance(value, list) or not holds_messages(value):
        return False
    last = value[-1]
    speaker = str(last.get("role", last.get("from"))).lower() if isinstance(last, dict) else ""
    return speaker not in ("assistant", "gpt", "model", "bot", "chatgpt")


TEXT = Kind("text", _is_text)
TEXTS = Kind("text, or a list of texts", _are_texts)
MESSAGES = Kind("a list of messages", _are_messages)
OPEN_CHAT = Kind("a list of messages that waits for an answer", _is_open_chat)
ANSWER = Kind("text or messages", lambda value: _are_texts(value) or _are_messages(value))
DIALOGUE = Kind(
    r"a dialogue of `\n\nHuman:` and `\n\nAssistant:` turns",
    lambda value: isinstance(value, str) and layouts.ASSISTANT_HEADER in value,
)
TWO_TEXTS = Kind("a list of two texts, the chosen one first", _are_two_texts)
VERDICT = Kind("a number or a word", lambda value: isinstance(value, int | float | str) and not is_empty(value))
SOME = Kind("anything", lambda value: not is_empty(value))
TURNS = Kind("a list of turns", lambda value: isinstance(decoded(value), list) and not is_empty(decoded(value)))

Needs = Mapping[str, Kind]
_SIDES = {"chosen": TEXTS, "rejected": TEXTS}


@dataclass(frozen=True, slots=True)
class Format:
    """A layout of rows.

    how: what is made of it, in words.
    layout: its pairs, or a RowError.
    needs: the columns that a row has, and what they hold; several where one of several sets will do.
    unless: columns that another format would be about.
    also: what else must hold.
    details: what more is to be said of rows like this one.
    """

    how: str
    layout: layouts.Layout
    needs: tuple[Needs, ...]
    unless: Needs | None = None
    also: Callable[[Mapping[str, object]], bool] = lambda fields: True
    details: Callable[[Mapping[str, object]], str] = lambda fields: ""

    def recognise(self, fields: Mapping[str, object]) -> bool:
        """Whether a row is laid out so."""
        if any(kind.holds(fields.get(column)) for column, kind in (self.unless or {}).items()):
            return False
        fits = any(all(kind.holds(fields.get(column)) for column, kind in needs.items()) for needs in self.needs)
        return fits and self.also(fields)

    @property
    def expects(self) -> str:
        """The columns of the first set, and what is made of them, in words."""
        columns = ", ".join(f"`{column}` ({kind.words})" for column, kind in self.needs[0].items())
        return f"{columns}: {self.how}"


_NO_PROMPT = {"prompt": SOME, "messages": OPEN_CHAT, "conversations": OPEN_CHAT}
_LIST = Kind("a list", lambda value: isinstance(decoded(value), list))

FORMATS: dict[str, Format] = {
    "preference": Format(
        "prompt and answers are joined as they stand",
        layouts.verbatim,
        ({"prompt": TEXT, **_SIDES},),
        unless={"system": SOME, "tools": SOME, "history": TURNS},
    ),
    "dialogue": Format(
        "the prompt is what both dialogues share",
        layouts.dialogue,
        ({"chosen": DIALOGUE, "rejected": DIALOGUE},),
        unless={"prompt": SOME},
    ),
    "chat": Format(
        "chats that share their beginning, or answers to `prompt`",
        layouts.chat,
        (
            {"chosen": MESSAGES, "rejected": MESSAGES},
            {"prompt": MESSAGES, "chosen": ANSWER, "rejected": ANSWER},
            *(
                {"prompt": TEXT, **_SIDES, beside: kind}
                for beside, kind in (("system", SOME), ("tools", SOME), ("history", TURNS))
            ),
        ),
        also=lambda fields: (
            not (
                is_empty(fields.get("prompt"))
                and any(_is_open_chat(fields.get(column)) for column in ("messages", "conversations"))
            )
        ),
    ),
    "instruction": Format(
        "the user's turn is the instruction, with `input` below it; `system` and `history` before it",
        partial(layouts.asked, prompts=("instruction",)),
        ({"instruction": TEXT, "chosen": ANSWER, "rejected": ANSWER},),
        unless={"prompt": MESSAGES},
        also=lambda fields: not (_are_messages(fields.get("chosen")) and _are_messages(fields.get("rejected"))),
    ),
    "question": Format(
        "the user's turn is the question (or `input`), `system` and `history` before it",
        partial(layouts.asked, prompts=("question", "input")),
        ({"question": TEXT, **_SIDES}, {"input": TEXT, **_SIDES}),
        unless={**_NO_PROMPT, "instruction": SOME},
    ),
    "sharegpt": Format(
        "answers to a conversation of {from, value}",
        partial(layouts.continued, prompt="conversations"),
        ({"conversations": OPEN_CHAT, "chosen": ANSWER, "rejected": ANSWER},),
        unless={"prompt": SOME},
    ),
    "messages": Format(
        "answers to a chat of {role, content}",
        partial(layouts.continued, prompt="messages"),
        ({"messages": OPEN_CHAT, "chosen": ANSWER, "rejected": ANSWER},),
        unless={"prompt": SOME, "conversations": OPEN_CHAT},
    ),
    "swift": Format(
        "the last turn of `messages` is chosen, the other one rejected",
        layouts.answered,
        (
            {"messages": MESSAGES, "rejected_response": ANSWER},
            {"messages": MESSAGES, "rejected_messages": MESSAGES},
        ),
        unless={"chosen": SOME},
    ),
    "openai": Format(
        "OpenAI's preference data",
        layouts.openai,
        (
            {
                "input": Kind("an object with `messages`", layouts.has_messages),
                "preferred_output": ANSWER,
                "non_preferred_output": ANSWER,
            },
        ),
    ),
    "output-list": Format(
        "LLaMA-Factory's former layout; the user's turn is the instruction, with `input` below it",
        layouts.listed_output,
        ({"instruction": TEXT, "output": TWO_TEXTS},),
        unless={"chosen": SOME},
    ),
    "shp": Format(
        "Stanford Human Preferences: `labels` 1 prefers A, 0 prefers B; `history` is the user's turn",
        partial(
            layouts.judged,
            prompt="history",
            first="human_ref_A",
            second="human_ref_B",
            verdict="labels",
            sides={"1": 0, "0": 1},
        ),
        ({"history": TEXT, "human_ref_A": TEXT, "human_ref_B": TEXT, "labels": VERDICT},),
    ),
    "safe-rlhf": Format(
        "PKU-SafeRLHF: `better_response_id` (else `safer_response_id`) names the chosen answer; `prompt` is the user's",
        layouts.safer,
        (
            {"prompt": TEXT, "response_0": TEXT, "response_1": TEXT, "better_response_id": VERDICT},
            {"prompt": TEXT, "response_0": TEXT, "response_1": TEXT, "safer_response_id": VERDICT},
        ),
    ),
    "stack-exchange": Format(
        "stack-exchange-paired: `response_j` is the one with more votes",
        partial(layouts.asked, prompts=("question",), chosen="response_j", rejected="response_k"),
        ({"question": TEXT, "response_j": TEXT, "response_k": TEXT},),
    ),
    "helpsteer3": Format(
        "HelpSteer3: below 0 `response1` is better, above 0 `response2`; 0 is no preference",
        partial(
            layouts.strength, prompt="context", first="response1", second="response2", verdict="overall_preference"
        ),
        ({"context": ANSWER, "response1": TEXT, "response2": TEXT, "overall_preference": VERDICT},),
    ),
    "helpsteer2": Format(
        "HelpSteer2: below 0 `response_1` is better, above 0 `response_2`; 0 is no preference",
        partial(
            layouts.strength, prompt="prompt", first="response_1", second="response_2", verdict="preference_strength"
        ),
        ({"prompt": ANSWER, "response_1": TEXT, "response_2": TEXT, "preference_strength": VERDICT},),
    ),
    "arena": Format(
        "Chatbot Arena: `winner` is model_a, model_b or a tie, which is no preference",
        partial(
            layouts.judged,
            prompt=None,
            first="conversation_a",
            second="conversation_b",
            verdict="winner",
            sides={"model_a": 0, "model_b": 1, "tie": None, "tie (bothbad)": None},
        ),
        ({"conversation_a": MESSAGES, "conversation_b": MESSAGES, "winner": VERDICT},),
    ),
    "ranked": Format(
        f"each better completion against each worse one; also under {', '.join(LIST_COLUMNS[1:])}, ordered by ratings, "
        f"ranks and the like beside or within, with the prompt in {', '.join([*layouts.RANKED_PROMPTS][1:])}",
        layouts.ranked,
        ({"prompt": ANSWER, "completions": _LIST, "scores": _LIST}, {}),
        unless={"chosen": SOME},
        also=lambda fields: layouts.ranked_prompt(fields) is not None and bool(orders(fields)),
        details=order_in_words,
    ),
}


@dataclass(frozen=True, slots=True)
class Converted:
    """What a row gave. unused: columns with a value, and keys within columns, that went into no pair."""

    pairs: list[PreferencePair]
    unused: list[str]
    remarks: list[str]


Convert = Callable[[Row], Converted]


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
    found = f"Columns found: {', '.join(f'`{column}`' for column in columns) or 'none'}."
    if most:
        raise DataError(f"the rows fit several formats: {', '.join(winners)}. {found} Set data.format to one of them.")
    for row in rows:
        if reason := refusal(row.fields):
            raise DataError(f"{reason} {found}")
    raise DataError(f"the rows fit no format. {found} {_nearest(rows[0].fields)}\nFormats:\n{_listed()}")


def _nearest(fields: Mapping[str, object]) -> str:
    """The format of which a row has most, what it lacks, and how it may be given that."""
    lacks: list[tuple[float, str, list[str]]] = []
    for name, format in FORMATS.items():
        for needs in format.needs:
            missing = [column for column, kind in needs.items() if not kind.holds(fields.get(column))]
            if missing and len(missing) < len(needs):
                absent = sum(0.5 if fields.get(column) is not None else 1.0 for column in missing)
                lacks.append((absent / len(needs), name, missing))
    if not lacks:
        return f"Other names are mapped to ours by {_mapping(['prompt', 'chosen', 'rejected'])}."
    _, name, missing = min(lacks, key=lambda lack: lack[0])
    kinds = next(needs for needs in FORMATS[name].needs if set(missing) <= needs.keys())
    wanted = [
        f"`{column}` ({kinds[column].words}"
        + (f", and it is {kind_of(fields[column])})" if fields.get(column) is not None else ")")
        for column in missing
    ]
    return f"Nearest is `{name}`, which lacks {', '.join(wanted)}. If another column holds it: {_mapping(missing)}."


def _mapping(columns: Sequence[str]) -> str:
    return f"--data.columns {' '.join(f'{column}=THEIRS' for column in columns)} (dotted paths lead into objects)"


def _listed() -> str:
    return "\n".join(f"  {name}: {format.expects}" for name, format in FORMATS.items())


def conversion(name: str, ranked_pairs: RankedPairs) -> Convert:
    """The function that makes a row of this format into pairs.

    Raises:
        ConfigError: `ranked_pairs` is set, and has no effect on this format.
    """
    if name != "ranked" and ranked_pairs != "all":
        raise ConfigError(f"data.ranked_pairs has no effect on the format `{name}`: remove it.")
    layout = partial(layouts.ranked, choose=ranked_pairs) if name == "ranked" else FORMATS[name].layout
    return partial(_convert, layout=layout)


def _convert(row: Row, layout: layouts.Layout) -> Converted:
    fields = Fields(row.fields)
    try:
        parts = layout(fields)
    except OrderError as error:
        raise DataError(f"{row.id}: {error}") from error
    compare_ratings(fields)
    pairs = [PreferencePair(f"{row.id}{p.suffix}", p.prompt, p.chosen, p.rejected, p.tools) for p in parts]
    return Converted(pairs, [*fields.unused(), *sorted(fields.ignored)], fields.remarks)


def require_usable(pair: PreferencePair) -> None:
    """Raises a RowError for a pair that nothing can be learnt from."""
    for part, text in (("prompt", pair.prompt), ("chosen", pair.chosen), ("rejected", pair.rejected)):
        try:
            joined_text(text).encode("utf-8")
        except UnicodeEncodeError as error:
            raise RowError(UNREADABLE, f"`{part}` holds half a character: {error.reason}") from error
        says_more = not isinstance(text, str) and any(message.further for message in text)
        if not joined_text(text).strip() and not says_more:
            raise RowError("empty prompt" if part == "prompt" else "empty completion", f"`{part}` holds no text")
    if pair.chosen == pair.rejected:
        raise RowError("identical completions", "`chosen` and `rejected` are the same")


def joined_text(text: Text) -> str:
    """The words of a text or of all its messages, without roles."""
    return text if isinstance(text, str) else "".join(message.content for message in text)
