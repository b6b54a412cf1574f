"""What goes when a chat is too long: whole turns, the oldest first; the system's and the last question stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from tiltlm.data.examples import Message

_SYSTEM = ("system", "developer")


def fewer_turns(prompt: tuple[Message, ...]) -> Iterator[tuple[Message, ...]]:
    """The prompt without its oldest turn, without its two oldest, and so on down to the last.

    A turn is what the user says with the answers, calls and results that follow it.
    """
    lead, turns = _turns(prompt)
    for gone in range(1, len(turns)):
        yield (*lead, *chain.from_iterable(turns[gone:]))


def last_turn(prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """The least that is left of a prompt: what the system says, and the last turn."""
    lead, turns = _turns(prompt)
    return (*lead, *(turns[-1] if turns else ()))


def with_question(prompt: tuple[Message, ...], question: str) -> tuple[Message, ...]:
    """The prompt with another text of the user's last message."""
    number = last_question(prompt)
    assert number is not None
    return (*prompt[:number], replace(prompt[number], content=question), *prompt[number + 1 :])


def last_question(prompt: tuple[Message, ...]) -> int | None:
    """The number of the user's last message; None if the user says nothing."""
    return next((i for i in reversed(range(len(prompt))) if prompt[i].role == "user"), None)


def _turns(prompt: tuple[Message, ...]) -> tuple[tuple[Message, ...], list[list[Message]]]:
    start = next((i for i, message in enumerate(prompt) if message.role not in _SYSTEM), len(prompt))
    turns: list[list[Message]] = []
    for number in range(start, len(prompt)):
        asks = prompt[number].role == "user" and prompt[number - 1].role != "user"
        if asks or not turns:
            turns.append([])
        turns[-1].append(prompt[number])
    return prompt[:start], turns
