"""Sequences of examples that take no memory: many are kept in a file, and made again when they are asked for."""

from __future__ import annotations

import json
from abc import abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, overload

import numpy as np

from tiltlm.data.examples import Example, Message, Text
from tiltlm.errors import DataError
from tiltlm.storage.scratch import ScratchFile, scratch_folder

IN_MEMORY = 1 << 25
"""Characters of all examples up to which they are held in memory."""
_BESIDES = 400
"""What the objects of an example take in memory, counted as characters, about."""
_AT_ONCE = 1 << 20


class ExamplesBuilder:
    """Takes in examples one at a time: a list, until they are too many for memory."""

    def __init__(self) -> None:
        self._held: list[Example] = []
        self._characters = 0
        self._file: ScratchFile | None = None
        self._bounds = array("q", [0])

    def add(self, example: Example) -> None:
        """Takes in an example.

        Raises:
            DataError: there are too many for memory, and the disk has no room for them.
        """
        if self._file is not None:
            self._write(example)
            return
        self._held.append(example)
        self._characters += _BESIDES + sum(
            map(_characters, (example.prompt, *example.completions, example.tools or ""))
        )
        if self._characters > IN_MEMORY:
            # Asked for again only when as many have come once more, where no file can be made.
            self._characters = 0
            self._file = ScratchFile.made()
            if self._file is not None:
                for held in self._held:
                    self._write(held)
                self._held = []

    def examples(self) -> Sequence[Example]:
        """All that were taken in. Nothing can be added from then on.

        Raises:
            DataError: as `add`.
        """
        if self._file is None:
            return self._held
        with _room():
            self._file.flush()
        return StoredExamples(self._file, np.frombuffer(self._bounds, dtype=np.int64))

    def _write(self, example: Example) -> None:
        assert self._file is not None
        with _room():
            written = self._file.write(json.dumps(_plain(example)).encode("ascii"))
        self._bounds.append(self._bounds[-1] + written)


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the data are more than is held in memory, and {scratch_folder()} has no room for them "
            f"({error.strerror or error}): name a folder on another disk with TILTLM_SCRATCH."
        ) from error


class _Made(Sequence[Example]):
    """Examples that are made when they are asked for."""

    @abstractmethod
    def _at(self, place: int) -> Example:
        """The example of a place from 0 on."""

    @overload
    def __getitem__(self, number: int) -> Example: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Example]: ...
    def __getitem__(self, number: int | slice) -> Example | Sequence[Example]:
        if isinstance(number, slice):
            return SomeExamples(self, np.arange(len(self))[number])
        place = number + len(self) if number < 0 else number
        if not 0 <= place < len(self):
            raise IndexError(number)
        return self._at(place)


class StoredExamples(_Made):
    """Examples in a file of this process's own, which nobody else can reach.

    bounds: int64; example n lies in the bytes bounds[n] to bounds[n + 1].
    """

    def __init__(self, file: ScratchFile, bounds: np.ndarray) -> None:
        self._file = file
        self._bounds = bounds

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def _at(self, place: int) -> Example:
        start, end = self._bounds[place : place + 2].tolist()
        return _example(json.loads(self._file.read(start, end - start)))

    def __iter__(self) -> Iterator[Example]:
        first = 0
        while first < len(self):
            start = int(self._bounds[first])
            last = int(np.searchsorted(self._bounds, start + _AT_ONCE, side="right")) - 1
            last = min(max(last, first + 1), len(self))
            read = self._file.read(start, int(self._bounds[last]) - start).decode("ascii")
            bounds = (self._bounds[first : last + 1] - start).tolist()
            for begin, end in pairwise(bounds):
                yield _example(json.loads(read[begin:end]))
            first = last


class SomeExamples(_Made):
    """Some of a sequence's examples, by their numbers."""

    def __init__(self, examples: Sequence[Example], numbers: np.ndarray) -> None:
        self._examples = examples
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def _at(self, place: int) -> Example:
        return self._examples[int(self._numbers[place])]


class JoinedExamples(_Made):
    """The examples of several sequences, one after another."""

    def __init__(self, parts: Sequence[Sequence[Example]]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _at(self, place: int) -> Example:
        part = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self._parts[part][int(place - self._starts[part])]

    def __iter__(self) -> Iterator[Example]:
        for part in self._parts:
            yield from part


def some_of(examples: Sequence[Example], numbers: np.ndarray) -> Sequence[Example]:
    """Those with these numbers: a list of what is held in memory anyway."""
    return [examples[n] for n in numbers.tolist()] if isinstance(examples, list) else SomeExamples(examples, numbers)


def _characters(text: Text) -> int:
    if isinstance(text, str):
        return len(text)
    return sum(len(m.content) + sum(len(value) for _, value in m.further) for m in text)


def _plain(example: Example) -> list[object]:
    texts = [_plain_text(text) for text in (example.prompt, *example.completions)]
    return [example.id, texts, example.labels, example.tools, example.scores, example.ended]


def _plain_text(text: Text) -> object:
    return text if isinstance(text, str) else [(m.role, m.content, m.further) for m in text]


def _example(plain: Any) -> Example:
    id, texts, labels, tools, scores, ended = plain
    prompt, *completions = map(_text, texts)
    return Example(
        id,
        prompt,
        tuple(completions),
        tuple(labels),
        tools,
        None if scores is None else tuple(scores),
        None if ended is None else tuple(ended),
    )


def _text(plain: Any) -> Text:
    if isinstance(plain, str):
        return plain
    return tuple(Message(role, content, tuple(map(tuple, further))) for role, content, further in plain)
