"""The examples that are used, as the checks see them: texts and tokens side by side, numbered through both splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from tiltlm.data.examples import Example, Text
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.objectives.interface import CHOSEN, REJECTED


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The examples of one split.

    split: `train` or `eval`. examples: as read, examples[i] being that of columns[i]. prompts: uint64, a digest of each
    one's prompt as text.
    """

    split: str
    examples: Sequence[Example]
    columns: TokenColumns
    prompts: np.ndarray


class Prompts(Sequence[str]):
    """The prompts of examples as text, made when they are asked for."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        found = self._examples[number]
        return one_text(found.prompt) if isinstance(found, Example) else [one_text(one.prompt) for one in found]

    def __iter__(self) -> Iterator[str]:
        return (one_text(example.prompt) for example in self._examples)


def own_texts(text: Text) -> list[str]:
    """A text, or what each message of a chat says."""
    return [text] if isinstance(text, str) else [message.content for message in text]


def one_text(text: Text) -> str:
    """A text, or what the messages of a chat say, one below the other."""
    return text if isinstance(text, str) else "\n".join(message.content for message in text)


def named_texts(example: Example) -> Iterator[tuple[str, str]]:
    """Every text of an example with the name of the part that it belongs to."""
    for text in own_texts(example.prompt):
        yield "prompt", text
    for name, completion in zip(example.names, example.completions, strict=True):
        for text in own_texts(completion):
            yield name, text


def label_name(label: int) -> str:
    """What a completion of this label is called in figures."""
    return {CHOSEN: "chosen", REJECTED: "rejected"}[label]
