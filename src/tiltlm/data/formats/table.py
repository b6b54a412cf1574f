"""How rows are laid out: one table of formats, each recognised by its columns and converted by one layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from tiltlm.data.formats import layouts
from tiltlm.data.formats.fields import is_empty
from tiltlm.data.formats.kinds import (
    ANSWER,
    DIALOGUE,
    LABEL,
    LIST,
    MESSAGES,
    OBJECT_OF_MESSAGES,
    OPEN_CHAT,
    SOME,
    TEXT,
    TEXTS,
    TURNS,
    TWO_TEXTS,
    VERDICT,
    Kind,
)
from tiltlm.data.formats.labelled import demonstration, is_demonstration, is_labelled, labelled
from tiltlm.data.formats.pairing import Parts
from tiltlm.data.formats.ranking import LIST_COLUMNS, order_in_words, orders
from tiltlm.objectives.interface import Unit

Needs = Mapping[str, Kind]
_SIDES = {"chosen": TEXTS, "rejected": TEXTS}
# What makes a chat of text, standing beside it.
_BESIDE: tuple[Needs, ...] = ({"system": SOME}, {"tools": SOME}, {"history": TURNS})


def _fits(needs: Needs, fields: Mapping[str, object]) -> bool:
    return all(kind.holds(fields.get(column)) for column, kind in needs.items())


@dataclass(frozen=True, slots=True)
class Format:
    """A layout of rows.

    how: what is made of it, in words.
    layout: its examples, or a RowError.
    needs: the columns that a row has, and what they hold; several where one of several sets will do.
    unless: columns that another format would be about.
    also: what else must hold.
    details: what more is to be said of rows like this one.
    takes: a format whose rows are read as this one where there are rows of both.
    ranks: whether a row is a list of which `data.ranked_pairs` chooses; the layout takes that as `choose`.
    unit: what a row gives: pairs, single completions with a label, or demonstrations.
    """

    how: str
    layout: Callable[..., list[Parts]]
    needs: tuple[Needs, ...]
    unless: Needs | None = None
    also: Callable[[Mapping[str, object]], bool] = lambda fields: True
    details: Callable[[Mapping[str, object]], str] = lambda fields: ""
    takes: str | None = None
    ranks: bool = False
    unit: Unit = "pair"

    def recognise(self, fields: Mapping[str, object]) -> bool:
        """Whether a row is laid out so."""
        if any(kind.holds(fields.get(column)) for column, kind in (self.unless or {}).items()):
            return False
        return any(_fits(needs, fields) for needs in self.needs) and self.also(fields)

    def expects(self, fields: Mapping[str, object] | None = None) -> str:
        """The columns of the first set, or of the set that a row has, and what is made of them, in words."""
        sets = [needs for needs in self.needs if needs and _fits(needs, fields or {})]
        columns = ", ".join(f"`{column}` ({kind.words})" for column, kind in (sets or self.needs)[0].items())
        return f"{columns}: {self.how}"


# What makes two answers of one.
_PAIRED = dict.fromkeys(("chosen", "rejected", "rejected_response", "rejected_messages"), SOME)
_ANSWERED_OTHERWISE = {**_PAIRED, **dict.fromkeys(LIST_COLUMNS, LIST), "output": TWO_TEXTS}
_NO_PROMPT = {"prompt": SOME, "messages": OPEN_CHAT, "conversations": OPEN_CHAT}
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
        ),
        also=lambda fields: (
            not (
                is_empty(fields.get("prompt"))
                and any(OPEN_CHAT.holds(fields.get(column)) for column in ("messages", "conversations"))
            )
        ),
    ),
    "text-chat": Format(
        "a chat, as `system`, `tools` or `history` stands beside the prompt",
        layouts.chat,
        tuple({"prompt": TEXT, **_SIDES, **beside} for beside in _BESIDE),
        takes="preference",
    ),
    "instruction": Format(
        "the user's turn is the instruction, with `input` below it; `system` and `history` before it",
        partial(layouts.asked, prompts=("instruction",)),
        ({"instruction": TEXT, "chosen": ANSWER, "rejected": ANSWER},),
        unless={"prompt": MESSAGES},
        also=lambda fields: not (MESSAGES.holds(fields.get("chosen")) and MESSAGES.holds(fields.get("rejected"))),
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
                "input": OBJECT_OF_MESSAGES,
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
    "judged": Format(
        "`winner` is a, b, or a tie, which is no preference",
        partial(
            layouts.judged,
            prompt="prompt",
            first="response_a",
            second="response_b",
            verdict="winner",
            sides={
                name: side
                for side, letter in enumerate("ab")
                for name in (letter, f"model_{letter}", f"response_{letter}")
            }
            | {"tie": None, "tie (bothbad)": None},
        ),
        ({"prompt": ANSWER, "response_a": ANSWER, "response_b": ANSWER, "winner": VERDICT},),
    ),
    "ranked": Format(
        f"each better completion against each worse one; also under {', '.join(LIST_COLUMNS[1:])}, ordered by ratings, "
        f"ranks and the like beside or within, with the prompt in {', '.join([*layouts.RANKED_PROMPTS][1:])}",
        layouts.ranked,
        ({"prompt": ANSWER, "completions": LIST, "scores": LIST}, {}),
        unless={"chosen": SOME},
        also=lambda fields: layouts.ranked_prompt(fields) is not None and bool(orders(fields)),
        details=order_in_words,
        ranks=True,
    ),
    "ranked-chat": Format(
        "as `ranked`, in a chat, as `system`, `tools` or `history` stands beside the prompt",
        partial(layouts.ranked, always_chats=True),
        tuple({"prompt": TEXT, **beside} for beside in _BESIDE),
        unless={"chosen": SOME},
        also=lambda fields: bool(orders(fields)),
        details=order_in_words,
        takes="ranked",
        ranks=True,
    ),
    "labelled": Format(
        "one answer with its label, as KTO learns from; joined as it stands where both are text",
        labelled,
        ({"prompt": ANSWER, "completion": ANSWER, "label": LABEL}, {}),
        unless=_PAIRED,
        also=is_labelled,
        takes="demonstration",
        unit="completion",
    ),
    "labelled-chat": Format(
        "as `labelled`, in a chat, as `system`, `tools` or `history` stands beside the prompt",
        partial(labelled, always_chats=True),
        tuple({"prompt": TEXT, **beside} for beside in _BESIDE),
        unless=_PAIRED,
        also=is_labelled,
        takes="labelled",
        unit="completion",
    ),
    "demonstration": Format(
        "one answer to imitate, of a whole chat the last turn; joined as it stands where both are text",
        demonstration,
        ({"prompt": ANSWER, "completion": ANSWER}, {}),
        unless=_ANSWERED_OTHERWISE,
        also=is_demonstration,
        unit="demonstration",
    ),
    "demonstration-chat": Format(
        "as `demonstration`, in a chat, as `system`, `tools` or `history` stands beside the prompt",
        partial(demonstration, always_chats=True),
        tuple({"prompt": TEXT, **beside} for beside in _BESIDE),
        unless=_ANSWERED_OTHERWISE,
        also=is_demonstration,
        takes="demonstration",
        unit="demonstration",
    ),
}
