"""Pairs that are there more than once, and pairs that say the opposite of each other."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from tiltlm.data.examples import Example, Text
from tiltlm.data.quality.findings import Names, finding, of_all, verb
from tiltlm.data.splitting import as_numbers, example_key, grouped
from tiltlm.objectives.interface import CHOSEN, REJECTED, Unit
from tiltlm.runs.data_account import DataFinding, FoundRow


class Said:
    """What examples say, one after another, as digests of 128 bits: a few dozen bytes of each completion.

    A prompt is the same but for white space around it and its messages, as in splitting; completions are the same to
    the character.
    """

    def __init__(self) -> None:
        self._prompts, self._completions = bytearray(), bytearray()
        self._labels = array("b")
        self._members = array("q", [0])

    def see(self, example: Example) -> None:
        """Takes in an example."""
        self._prompts += bytes.fromhex(example_key(example))
        for text in example.completions:
            self._completions += _digest(text)
        self._labels.extend(example.labels)
        self._members.append(len(self._labels))

    def __len__(self) -> int:
        return len(self._members) - 1

    def prompts(self) -> np.ndarray:
        """The prompts' digests, as `splitting.digests`."""
        return as_numbers(self._prompts)

    def __iter__(self) -> Iterator[tuple[bytes, list[_Said]]]:
        """Of each example the digest of its prompt, and those of its completions with their labels."""
        for number, (first, last) in enumerate(pairwise(self._members)):
            texts = (bytes(self._completions[_SIZE * n : _SIZE * (n + 1)]) for n in range(first, last))
            prompt = bytes(self._prompts[_SIZE * number : _SIZE * (number + 1)])
            yield prompt, list(zip(texts, self._labels[first:last], strict=True))


_Said = tuple[bytes, int]
"""A digest of a completion, and its label."""
_SIZE = 16


def repeated_and_contradictory(said: Said, unit: Unit, name: Names, noun: str) -> list[DataFinding]:
    """Two findings: what repeats an earlier example, and what contradicts another one.

    Pairs contradict each other where one chooses what the other rejects, and the reverse. For an objective that judges
    answers one by one, two examples do that label the same answer differently. Lists are taken as pairs of a best
    answer and another one; demonstrations state nothing that could be contradicted.
    """
    repeated = _repeated(said, unit, name, noun)
    return [repeated] if unit == "demonstration" else [repeated, _contradictory(said, unit, name, noun)]


def _digest(text: Text) -> bytes:
    plain = text if isinstance(text, str) else json.dumps([[m.role, m.content, m.further] for m in text])
    kind = b"text" if isinstance(text, str) else b"chat"
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=_SIZE, person=kind).digest()


def _together(*parts: bytes) -> bytes:
    """One digest of several of one length and what else is said."""
    return hashlib.blake2b(b"".join(parts), digest_size=_SIZE).digest()


def _labelled(said: _Said) -> bytes:
    return said[0] + said[1].to_bytes(1, "little", signed=True)


def _repeated(said: Said, unit: Unit, name: Names, noun: str) -> DataFinding:
    joined = bytearray()
    for prompt, completions in said:
        joined += _together(prompt, *sorted({_labelled(one) for one in completions}))
    groups, numbers = grouped(as_numbers(joined)), np.arange(len(said))
    first = np.full(groups.max(initial=-1) + 1, -1, dtype=np.int64)
    first[groups[::-1]] = numbers[::-1]  # the first one is written last
    first = first[groups]
    repeats = np.flatnonzero(first != numbers).tolist()
    return finding(
        f"duplicate {noun}s",
        len(repeats),
        len(said),
        f"{of_all(len(repeats), len(said), noun)} {verb(len(repeats), 'repeats', 'repeat')} an earlier one: same "
        f"prompt, {_ANSWERS[unit]}.",
        (FoundRow((name(number), name(int(first[number]))), "repeats the second") for number in repeats),
        advice="Each counts as often as it is there. Remove the repeats unless that is meant.",
    )


def _contradictory(said: Said, unit: Unit, name: Names, noun: str) -> DataFinding:
    against = _against(said, unit)
    found = np.flatnonzero(against >= 0).tolist()
    # Both sides count; two that are each other's are listed once, by the later one.
    listed = (
        (number, int(against[number]))
        for number in found
        if number >= against[number] or against[against[number]] != number
    )
    return finding(
        f"contradictory {noun}s",
        len(found),
        len(said),
        f"{of_all(len(found), len(said), noun)} {verb(len(found), 'contradicts', 'contradict')} {_AGAINST[unit]}.",
        (FoundRow((name(number), name(other)), "contradicts the second") for number, other in listed),
        advice="What such ones teach cancels out, and no model can get both right. Keep the side that you trust.",
    )


def _against(said: Said, unit: Unit) -> np.ndarray:
    """Of each example the first one that states the opposite of the first of its statements that anyone opposes; -1
    where there is none."""
    owners, joined = array("q"), bytearray()
    for number, (prompt, completions) in enumerate(said):
        for statement, opposite in _statements(prompt, completions, unit):
            owners.append(number)
            joined += statement + opposite
    both = grouped(as_numbers(joined))
    own, opposed_by = both[0::2], both[1::2]
    owner = np.array(owners, dtype=np.int64)
    stated = np.full(both.max(initial=-1) + 1, -1, dtype=np.int64)
    stated[own[::-1]] = owner[::-1]  # the first one that states it is written last
    opposed = stated[opposed_by]
    against = np.full(len(said), -1, dtype=np.int64)
    some = np.flatnonzero(opposed >= 0)[::-1]
    against[owner[some]] = opposed[some]
    return against


_ANSWERS: Mapping[Unit, str] = {
    "pair": "chosen and rejected completion",
    "completion": "completion and label",
    "list": "completions, the same of them best",
    "demonstration": "completion",
}
_AGAINST: Mapping[Unit, str] = {
    "pair": "another one of the same prompt with chosen and rejected swapped",
    "completion": "another one, which gives the same answer the other label",
    "list": "another one of the same prompt, whose best answer stands below its own and the reverse",
}


def _statements(prompt: bytes, said: Sequence[_Said], unit: Unit) -> Iterator[tuple[bytes, bytes]]:
    """Digests of what an example states, each with that of its opposite."""
    if unit in ("pair", "list"):
        chosen, rejected = ([text for text, label in said if label == wanted] for wanted in (CHOSEN, REJECTED))
        for better in chosen:
            for worse in rejected:
                yield _together(prompt, better, worse), _together(prompt, worse, better)
    else:
        for text, label in said:
            other = REJECTED if label == CHOSEN else CHOSEN
            yield _together(prompt, _labelled((text, label))), _together(prompt, _labelled((text, other)))
