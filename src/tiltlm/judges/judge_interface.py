"""What a judge is shown and what it gives, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tiltlm.data.examples import Message, Text
from tiltlm.data.turns import in_words

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer to be judged.

    prompt: in words: as it stands, or a chat with `Human: ` and `Assistant: ` before its turns.
    messages: the chat, where it is one.
    """

    prompt: str
    messages: tuple[Message, ...] | None
    answer: str


def asked_of(prompt: Text, answer: Text) -> Asked:
    """An answer to a prompt as a judge is shown it."""
    return Asked(in_words(prompt), None if isinstance(prompt, str) else prompt, in_words(answer))


class PointwiseJudge(Protocol):
    """Gives one answer a number: higher is better. `name` is the word that names it."""

    @property
    def name(self) -> str: ...

    def facts(self) -> Mapping[str, object]:
        """What decides its judgements, as values of JSON: kept with them, and compared before they are gone on with.

        Raises:
            TiltlmError: what it names cannot be had.
        """

    def rewards(self, asked: Sequence[Asked], advance: Advance = lambda done: None) -> list[float]:
        """The finite number of each answer. advance: called with how many more are judged.

        Raises:
            TiltlmError: it fails at one.
        """

    def remarks(self) -> list[str]:
        """What a person should know of the judgements so far, in sentences: how many answers were cut, say."""


@dataclass(frozen=True, slots=True)
class BothOrders:
    """What a judge said of two answers, once with either in the first place.

    wins: of the first answer in the order that was given: 1, 0, or 0.5 a tie; None where the judge failed.
    turned: of the same answer where it stood in the second place.
    why: what failed, where something did.
    """

    wins: float | None
    turned: float | None
    why: str | None = None

    @property
    def verdict(self) -> float | None:
        """1 or 0 where both orders agree, 0.5 where they do not or both are ties; None where one failed."""
        if self.wins is None or self.turned is None:
            return None
        return self.wins if self.wins == self.turned else 0.5

    @property
    def favours_first_place(self) -> bool | None:
        """Where the orders disagree: whether the disagreement is in favour of what stands in the first place."""
        if self.wins is None or self.turned is None or self.wins == self.turned:
            return None
        return self.wins > self.turned


@runtime_checkable
class ComparingJudge(Protocol):
    """Says which of two answers to one prompt is better. `name` is the word that names it."""

    @property
    def name(self) -> str: ...

    def facts(self) -> Mapping[str, object]:
        """As of a `PointwiseJudge`."""

    def both_orders(
        self, pairs: Sequence[tuple[Asked, Asked]], advance: Advance = lambda done: None
    ) -> list[BothOrders]:
        """What it says of each pair in both orders. advance: called with how many more pairs are judged.

        Raises:
            TiltlmError: it cannot go on; failures at one pair are in the result.
        """

    def compare(self, pairs: Sequence[tuple[Asked, Asked]], advance: Advance = lambda done: None) -> list[float | None]:
        """The verdict on each pair: wins of its first answer, see `BothOrders.verdict`."""

    def remarks(self) -> list[str]:
        """As of a `PointwiseJudge`."""
