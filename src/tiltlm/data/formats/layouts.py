"""What becomes of a row: each function turns the fields of one layout into prompts with two answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from tiltlm.data.examples import Message, Text
from tiltlm.data.files.raw_rows import UNREADABLE, kind_of
from tiltlm.data.formats.context import QUESTIONS, introduced, question, tools_field, tools_within
from tiltlm.data.formats.endings import endings_of_list
from tiltlm.data.formats.fields import Fields, RowError, as_text, field, is_empty, look, plain, text_field
from tiltlm.data.formats.messages import answers_field, chat_field
from tiltlm.data.formats.notation import decoded, holds_messages
from tiltlm.data.formats.pairing import MOST_PAIRS, Parts, after, each, parted, require_few, shared_length
from tiltlm.data.formats.pairing import answered as answered_alike
from tiltlm.data.formats.ranking import RANKED_PAIRS, Choice, number, ranked_texts
from tiltlm.objectives.interface import CHOSEN, REJECTED

USER_HEADER = "\n\nHuman:"
ASSISTANT_HEADER = "\n\nAssistant:"


Layout = Callable[[Fields], list[Parts]]


def verbatim(fields: Fields) -> list[Parts]:
    """`prompt`, `chosen` and `rejected` are text, joined as they stand."""
    prompt = text_field(fields, "prompt")
    chosen, rejected = (_texts(fields, column) for column in ("chosen", "rejected"))
    return [Parts.pair(prompt, better, worse, suffix=suffix) for better, worse, suffix in each(chosen, rejected)]


def dialogue(fields: Fields) -> list[Parts]:
    """Anthropic's HH layout (arXiv 2204.05862): the prompt ends with the last assistant header that both share."""
    chosen, rejected = (text_field(fields, column) for column in ("chosen", "rejected"))
    header = chosen.rfind(ASSISTANT_HEADER, 0, shared_length(chosen, rejected))
    if header < 0:
        raise RowError("dialogues share no prompt", f"they differ before any {ASSISTANT_HEADER!r}")
    cut = header + len(ASSISTANT_HEADER)
    return [Parts.pair(chosen[:cut], chosen[cut:].rstrip(), rejected[cut:].rstrip())]


def chat(fields: Fields) -> list[Parts]:
    """`chosen` and `rejected` are messages: answers to `prompt`, or whole chats that share their beginning."""
    if holds_messages(fields.look("prompt")):
        return continued(fields, "prompt")
    tools = tools_field(fields) or tools_within(fields, "chosen")
    chosen, rejected = (answers_field(fields, column) for column in ("chosen", "rejected"))
    questions = [name for name in QUESTIONS if isinstance(fields.look(name), str) and not is_empty(fields.look(name))]
    if questions and all(answer and answer[0].role == "assistant" for answer in (*chosen, *rejected)):
        asked = question(fields, questions)
        return [after(asked, better, worse, tools, suffix) for better, worse, suffix in each(chosen, rejected)]
    prompt = fields.look("prompt")
    pairs = [parted(better, worse, tools, suffix) for better, worse, suffix in each(chosen, rejected)]
    if isinstance(prompt, str) and all(_says(pair.prompt, prompt) for pair in pairs):
        fields["prompt"]  # it stands in the chats, too
    return [_with_system(fields, pair) for pair in pairs]


def continued(fields: Fields, prompt: str, chosen: str = "chosen", rejected: str = "rejected") -> list[Parts]:
    """A column of messages, and two answers to it, as text or messages, or whole chats that repeat it."""
    tools = tools_field(fields) or tools_within(fields, prompt)
    asked = introduced(fields, chat_field(fields, prompt))
    sides = (answers_field(fields, column) for column in (chosen, rejected))
    return [after(asked, better, worse, tools, suffix) for better, worse, suffix in each(*sides)]


def asked(fields: Fields, prompts: Sequence[str], chosen: str = "chosen", rejected: str = "rejected") -> list[Parts]:
    """A question as text, in the first of some columns that is there, and two answers to it."""
    prompt = question(fields, prompts)
    tools = tools_field(fields)
    sides = (answers_field(fields, column) for column in (chosen, rejected))
    return [after(prompt, better, worse, tools, suffix) for better, worse, suffix in each(*sides)]


def answered(fields: Fields) -> list[Parts]:
    """ms-swift's layout: `messages` ends with the chosen answer, and another one stands beside it."""
    whole, tools = chat_field(fields, "messages"), tools_field(fields)
    if not is_empty(fields.look("rejected_messages")):
        return [_with_system(fields, parted(whole, chat_field(fields, "rejected_messages"), tools))]
    if not whole or whole[-1].role != "assistant":
        raise RowError("turns out of order", "`messages` does not end with the assistant's answer")
    prompt, rejected = introduced(fields, whole[:-1]), answers_field(fields, "rejected_response")
    return [after(prompt, better, worse, tools, suffix) for better, worse, suffix in each([whole[-1:]], rejected)]


def has_messages(value: object) -> bool:
    """Whether this is an object that holds a chat as `messages`."""
    value = decoded(value)
    return isinstance(value, dict) and holds_messages(value.get("messages"))


def openai(fields: Fields) -> list[Parts]:
    """OpenAI's layout: `input` holds the chat and its tools, and each output is a list of messages."""
    return continued(fields, "input", "preferred_output", "non_preferred_output")


def listed_output(fields: Fields) -> list[Parts]:
    """LLaMA-Factory's former layout: `output` is a list of the chosen and the rejected answer."""
    prompt, tools = question(fields, ("instruction",)), tools_field(fields)
    output = decoded(field(fields, "output"))
    if not isinstance(output, list) or len(output) != 2:
        raise RowError(UNREADABLE, "`output` is no list of two texts, the chosen one first")
    chosen, rejected = (
        (Message("assistant", as_text(text, f"`output`, item {place}")),) for place, text in enumerate(output, start=1)
    )
    return [after(prompt, chosen, rejected, tools)]


def judged(
    fields: Fields, prompt: str | None, first: str, second: str, verdict: str, sides: Mapping[str, int | None]
) -> list[Parts]:
    """Two answers and a verdict. sides: what the verdict may be, and which answer (0, 1) it prefers; None: neither.

    prompt: its column, of text or messages; None where the answers are whole chats.
    """
    value = field(fields, verdict)
    said = plain(value)
    if said not in sides:
        raise RowError(UNREADABLE, f"`{verdict}` is {value!r:.40}; known are {', '.join(sides)}")
    side = sides[said]
    if side is None:
        raise RowError("no preference", f"`{verdict}` is {value!r}: neither answer is better")
    chosen, rejected = (first, second) if side == 0 else (second, first)
    if prompt is None:
        return [parted(chat_field(fields, chosen), chat_field(fields, rejected), tools_field(fields))]
    if holds_messages(fields.look(prompt)):
        return continued(fields, prompt, chosen, rejected)
    return asked(fields, (prompt,), chosen=chosen, rejected=rejected)


def strength(fields: Fields, prompt: str, first: str, second: str, verdict: str) -> list[Parts]:
    """HelpSteer's layouts (arXiv 2410.01257, 2505.11475): below zero the first response is better, at zero neither."""
    value = number(field(fields, verdict), f"`{verdict}`")
    sides: dict[str, int | None] = {plain(value): 0 if value < 0 else 1 if value else None}
    # How much better, as scores of both.
    return [replace(p, scores=(abs(value), 0.0)) for p in judged(fields, prompt, first, second, verdict, sides)]


def safer(fields: Fields) -> list[Parts]:
    """PKU-SafeRLHF's layout (arXiv 2406.15513): `better_response_id` is used, else `safer_response_id`."""
    helpful, safe = (plain(fields.look(name)) for name in ("better_response_id", "safer_response_id"))
    used = "safer_response_id" if is_empty(fields.look("better_response_id")) else "better_response_id"
    if used == "better_response_id" and not is_empty(fields.look("safer_response_id")):
        fields["safer_response_id"]  # compared
        if helpful != safe:
            fields.remarks.append(
                "`safer_response_id` names the other answer; `better_response_id` is used. For the safer one: "
                "--data.columns better_response_id=safer_response_id"
            )
    return judged(fields, "prompt", "response_0", "response_1", used, {"0": 0, "1": 1})


# The columns that may hold the prompt of a list of completions, and whether its text is what a user says.
RANKED_PROMPTS = {
    "prompt": False,
    "instruction": True,
    "question": True,
    "messages": True,
    "conversations": True,
    "context": True,
    "contents": True,
}


def ranked_prompt(fields: Mapping[str, object]) -> str | None:
    """The column that holds the prompt of a list of completions."""
    for column in RANKED_PROMPTS:
        value = look(fields, column)
        as_words = column in ("prompt", "instruction", "question") and isinstance(value, str)
        if as_words or holds_messages(value):
            return column
    return None


def ranked(fields: Fields, choose: Choice = "all", always_chats: bool = False) -> list[Parts]:
    """A list of completions that something orders; each pair of them, the best and the worst, or the list as it is.

    always_chats: a `prompt` that is text is what a user says, too.
    """
    column = ranked_prompt(fields) or "prompt"
    value = field(fields, column)
    prompt: Text
    if holds_messages(value):
        tools = tools_field(fields) or tools_within(fields, column)
        prompt = introduced(fields, chat_field(fields, column))
    elif isinstance(value, str):
        as_chat = RANKED_PROMPTS[column] or always_chats
        tools = tools_field(fields) if as_chat else None
        prompt = question(fields, (column,)) if as_chat else text_field(fields, column)
    else:
        raise RowError(UNREADABLE, f"`{column}` is {kind_of(value)}, not text or a list of messages")
    texts, scores, ordinal = ranked_texts(fields, as_chats=not isinstance(prompt, str))
    ended = endings_of_list(fields, len(texts))
    if isinstance(prompt, str) and any(not isinstance(text, str) for text in texts):
        prompt = (Message("user", prompt),)
        texts = [(Message("assistant", text),) if isinstance(text, str) else text for text in texts]
    if choose == "list":
        return [_ranked_list(prompt, texts, scores, tools, ordinal, ended)]
    pairs = list(islice(RANKED_PAIRS[choose](scores), MOST_PAIRS + 1))
    require_few(len(pairs))
    return [
        replace(
            _ranked_pair(prompt, texts[better], texts[worse], tools, f"#{better + 1}>{worse + 1}"),
            scores=(scores[better], scores[worse]),
            ordinal=ordinal,
            ended=ended and (ended[better], ended[worse]),
        )
        for better, worse in pairs
    ]


def _texts(fields: Fields, column: str) -> list[str]:
    """The text of a column, or the texts of a list of them."""
    value = field(fields, column)
    if isinstance(value, list) and value:
        return [as_text(text, f"`{column}`, item {number}") for number, text in enumerate(value, start=1)]
    return [as_text(value, f"`{column}`")]


def _with_system(fields: Fields, pair: Parts) -> Parts:
    """The pair of two whole chats after the system turn that stands in a column of its own."""
    if is_empty(fields.look("system")) or isinstance(pair.prompt, str):
        return pair
    history = Fields({"system": fields.look("system")})
    prompt = introduced(history, pair.prompt)
    if "system" in history.used:
        fields["system"]
    return replace(pair, prompt=prompt)


def _ranked_pair(prompt: Text, chosen: Text, rejected: Text, tools: str | None, suffix: str) -> Parts:
    if isinstance(prompt, str) or isinstance(chosen, str) or isinstance(rejected, str):
        return Parts.pair(prompt, chosen, rejected, tools, suffix)
    return after(prompt, chosen, rejected, tools, suffix)


def _ranked_list(
    prompt: Text,
    texts: Sequence[Text],
    scores: Sequence[float],
    tools: str | None,
    ordinal: bool,
    ended: tuple[bool, ...] | None,
) -> Parts:
    """The whole list, best first; what is as good as the best is labelled so."""
    order = sorted(range(len(texts)), key=lambda place: -scores[place])
    best = max(scores)
    labels = tuple(CHOSEN if scores[place] == best else REJECTED for place in order)
    completions = [texts[place] for place in order]
    if not isinstance(prompt, str):
        chats = {f"item {place + 1}": chat for place in order if not isinstance(chat := texts[place], str)}
        prompt, alone = answered_alike(prompt, chats)
        completions = [*alone]
    ordered = tuple(scores[place] for place in order)
    endings = ended and tuple(ended[place] for place in order)
    return Parts(prompt, tuple(completions), labels, tools, "", ordered, ordinal, endings)


def _says(prompt: Text, text: str) -> bool:
    """Whether a text stands in a chat."""
    return not isinstance(prompt, str) and any(text.strip() in message.content for message in prompt)
