"""Examples as read from the user's data: a prompt and its completions, as text, with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from tiltlm.objectives.interface import CHOSEN, REJECTED


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat: `role` is `system`, `user`, `assistant` or another the chat template knows.

    further: what else the message says, such as `tool_calls` or `reasoning_content`: names in alphabetical order, each
        with the JSON text of its value, so that messages can be compared and counted.
    """

    role: str
    content: str
    further: tuple[tuple[str, str], ...] = ()


# Verbatim text, or a chat still to be rendered by the model's template.
Text = str | tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt with one or more labelled completions. A pair is its chosen completion, then its rejected one.

    `id` names the example in every message and report: the file and line (or row) it came from, with a suffix where one
    row gives several. Either all texts are verbatim strings, which are concatenated as they stand, or all are messages
    for the model's chat template.

    labels: of each completion, CHOSEN or REJECTED (objectives/interface.py).
    tools: JSON text of the list of tools that the chat template is given; None where there are none.
    scores: of each completion, higher is better; None where the data has none.
    ended: of each completion, whether the answer ended there; False where it was cut in the middle, so that nothing
        says where it would have ended. None: all did.
    """

    id: str
    prompt: Text
    completions: tuple[Text, ...]
    labels: tuple[int, ...]
    tools: str | None = None
    scores: tuple[float, ...] | None = None
    ended: tuple[bool, ...] | None = None

    @staticmethod
    def pair(id: str, prompt: Text, chosen: Text, rejected: Text, tools: str | None = None) -> Example:
        """A preferred and a less preferred completion of one prompt."""
        return Example(id, prompt, (chosen, rejected), (CHOSEN, REJECTED), tools)

    @property
    def is_pair(self) -> bool:
        return self.labels == (CHOSEN, REJECTED)

    @property
    def names(self) -> tuple[str, ...]:
        """What messages call each completion."""
        if self.is_pair:
            return ("chosen", "rejected")
        return (
            ("completion",)
            if len(self.labels) == 1
            else tuple(f"completion {number}" for number in range(1, len(self.labels) + 1))
        )

    @property
    def endings(self) -> tuple[bool, ...]:
        """Of each completion, whether the answer ended there."""
        return self.ended or (True,) * len(self.labels)

    @property
    def chosen(self) -> Text:
        """The first chosen completion."""
        return self.completions[self.labels.index(CHOSEN)]

    @property
    def rejected(self) -> Text:
        """The first rejected completion."""
        return self.completions[self.labels.index(REJECTED)]


def contradictory(completions: Sequence[object], verdicts: Sequence[float]) -> bool:
    """Whether two completions of different verdicts, which are labels or scores, are the same."""
    return any(
        verdict != other and completion == same
        for (completion, verdict), (same, other) in combinations(zip(completions, verdicts, strict=True), 2)
    )
