"""From prompts and answers to examples, whose answers share their beginning."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tiltlm.data.examples import Text
from tiltlm.data.formats.fields import RowError
from tiltlm.data.formats.messages import Chat
from tiltlm.objectives.interface import CHOSEN, REJECTED


@dataclass(frozen=True, slots=True)
class Parts:
    """An example without its name. suffix: what tells it from the others of its row.

    scores: of each completion, higher is better; ordinal: only their order means anything.
    ended: of each completion, whether the answer ended there; None: all did.
    """

    prompt: Text
    completions: tuple[Text, ...]
    labels: tuple[int, ...]
    tools: str | None = None
    suffix: str = ""
    scores: tuple[float, ...] | None = None
    ordinal: bool = False
    ended: tuple[bool, ...] | None = None

    @staticmethod
    def pair(prompt: Text, chosen: Text, rejected: Text, tools: str | None = None, suffix: str = "") -> Parts:
        """A preferred and a less preferred completion of one prompt."""
        return Parts(prompt, (chosen, rejected), (CHOSEN, REJECTED), tools, suffix)


Answer = TypeVar("Answer", str, Chat)


MOST_PAIRS = 20_000
"""Pairs of one row: some 200 ranked answers make as many."""


def require_few(pairs: int) -> None:
    """Raises a RowError where a row would give so many pairs that they would drown all others."""
    if pairs > MOST_PAIRS:
        raise RowError(
            "too many pairs",
            f"its answers make more than {MOST_PAIRS:,} pairs: give fewer, or of a ranked list the best and the worst "
            "(data.ranked_pairs best-worst)",
        )


def each(chosen: Sequence[Answer], rejected: Sequence[Answer]) -> list[tuple[Answer, Answer, str]]:
    """Each chosen answer with each rejected one, and what tells the pair from the others.

    Raises:
        RowError: these are too many.
    """
    require_few(len(chosen) * len(rejected))
    alone = len(chosen) == len(rejected) == 1
    return [
        (better, worse, "" if alone else f"#{i}>{j}")
        for i, better in enumerate(chosen, start=1)
        for j, worse in enumerate(rejected, start=1)
    ]


def after(prompt: Chat, chosen: Chat, rejected: Chat, tools: str | None, suffix: str = "") -> Parts:
    """The pair of a prompt and answers, which may be whole chats that begin with the prompt."""
    prompt, (chosen, rejected) = answered(prompt, {"chosen": chosen, "rejected": rejected})
    return Parts.pair(prompt, chosen, rejected, tools, suffix)


def answered(prompt: Chat, answers: Mapping[str, Chat]) -> tuple[Chat, list[Chat]]:
    """A prompt, and its answers without it, which may be whole chats that begin with it.

    answers: by the names of their columns.
    """
    prompt = (*_system_before(prompt, [*answers.values()]), *prompt)
    bare = tuple(message for message in prompt if message.role != "system")
    alone = {
        column: messages[len(start) :]
        for column, messages in answers.items()
        for start in [next((start for start in (prompt, bare) if start and messages[: len(start)] == start), ())]
    }
    if prompt and prompt[-1].role == "assistant":
        raise RowError("turns out of order", "the prompt ends with an assistant turn")
    for column, messages in alone.items():
        if messages and messages[0].role != "assistant":
            raise RowError("turns out of order", f"`{column}` begins with a `{messages[0].role}` turn")
    return prompt, [*alone.values()]


def _system_before(prompt: Chat, answers: Sequence[Chat]) -> Chat:
    """What the system says before the prompt in all whole chats alike, where the prompt alone does not hold it."""
    said = answers[0][:1]
    begins = all(messages[: 1 + len(prompt)] == (*said, *prompt) for messages in answers)
    return said if prompt and begins and said and said[0].role in ("system", "developer") else ()


def parted(chosen: Chat, rejected: Chat, tools: str | None, suffix: str = "") -> Parts:
    """The pair of two whole chats: the prompt ends before the last assistant turn up to which they are the same."""
    for cut in range(min(shared_length(chosen, rejected), len(chosen) - 1, len(rejected) - 1), 0, -1):
        both_answer = chosen[cut].role == rejected[cut].role == "assistant"
        if both_answer and chosen[cut - 1].role != "assistant":
            return Parts.pair(chosen[:cut], chosen[cut:], rejected[cut:], tools, suffix)
    roles = list(dict.fromkeys(message.role for message in (*chosen, *rejected)))
    if "assistant" not in roles:
        raise RowError("role not known", f"no turn is the assistant's; the roles are {', '.join(roles) or 'none'}")
    if chosen and rejected and chosen[0].role == rejected[0].role == "assistant":
        raise RowError("dialogues share no prompt", "both begin with the assistant's answer, and there is no prompt")
    raise RowError("dialogues share no prompt", "the chats differ before any assistant turn")


def shared_length(a: Sequence[object], b: Sequence[object]) -> int:
    """How many first items two sequences share."""
    lengths = range(1, min(len(a), len(b)) + 1)
    return bisect_left(lengths, True, key=lambda length: a[:length] != b[:length])
