"""Pairs that are there more than once, and pairs that say the opposite of each other."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tiltlm.data.examples import Example, Text
from tiltlm.data.quality.findings import Names, finding, of_all, verb
from tiltlm.data.splitting import digests, example_key, grouped
from tiltlm.objectives.interface import CHOSEN, REJECTED, Unit
from tiltlm.runs.data_account import DataFinding, FoundRow

_Said = tuple[bytes, int]
"""A digest of a completion, and its label."""


def repeated_and_contradictory(examples: Sequence[Example], unit: Unit, name: Names, noun: str) -> list[DataFinding]:
    """Two findings: what repeats an earlier example, and what contradicts another one.

    A prompt is the same but for white space around it and its messages, as in splitting; completions are the same to
    the character. Pairs contradict each other where one chooses what the other rejects, and the reverse. For an
    objective that judges answers one by one, two examples do that label the same answer differently. Lists are taken as
    pairs of a best answer and another one; demonstrations state nothing that could be contradicted.

    All is compared by digests of 128 bits, in arrays: a few dozen bytes an example and statement.
    """
    repeated = _repeated(examples, unit, name, noun)
    return [repeated] if unit == "demonstration" else [repeated, _contradictory(examples, unit, name, noun)]


def _prompt(example: Example) -> bytes:
    return bytes.fromhex(example_key(example))


def _said(example: Example) -> Iterator[_Said]:
    return ((_digest(text), label) for text, label in zip(example.completions, example.labels, strict=True))


def _digest(text: Text) -> bytes:
    plain = text if isinstance(text, str) else json.dumps([[m.role, m.content, m.further] for m in text])
    kind = b"text" if isinstance(text, str) else b"chat"
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16, person=kind).digest()


def _together(*parts: bytes) -> str:
    """One digest, in hexadecimal, of several of one length and what else is said."""
    return hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()


def _labelled(said: _Said) -> bytes:
    return said[0] + said[1].to_bytes(1, "little", signed=True)


def _first_of(groups: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Of each group the smallest of its members' numbers."""
    first = np.full(groups.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, groups, numbers)
    return first


def _repeated(examples: Sequence[Example], unit: Unit, name: Names, noun: str) -> DataFinding:
    said = (_together(_prompt(example), *sorted({_labelled(one) for one in _said(example)})) for example in examples)
    groups = grouped(digests(said))
    numbers = np.arange(len(examples))
    first = _first_of(groups, numbers)[groups]
    repeats = np.flatnonzero(first != numbers).tolist()
    answer = _ANSWERS[unit]
    return finding(
        f"duplicate {noun}s",
        len(repeats),
        len(examples),
        f"{of_all(len(repeats), len(examples), noun)} {verb(len(repeats), 'repeats', 'repeat')} an earlier one: same "
        f"prompt, {answer}.",
        (FoundRow((name(number), name(int(first[number]))), "repeats the second") for number in repeats),
        advice="Each counts as often as it is there. Remove the repeats unless that is meant.",
    )


def _contradictory(examples: Sequence[Example], unit: Unit, name: Names, noun: str) -> DataFinding:
    against = _against(examples, unit)
    found = np.flatnonzero(against >= 0).tolist()
    what = _AGAINST[unit]
    # Both sides count; two that are each other's are listed once, by the later one.
    listed = (
        (number, int(against[number]))
        for number in found
        if number >= against[number] or against[against[number]] != number
    )
    return finding(
        f"contradictory {noun}s",
        len(found),
        len(examples),
        f"{of_all(len(found), len(examples), noun)} {verb(len(found), 'contradicts', 'contradict')} {what}.",
        (FoundRow((name(number), name(other)), "contradicts the second") for number, other in listed),
        advice="What such ones teach cancels out, and no model can get both right. Keep the side that you trust.",
    )


def _against(examples: Sequence[Example], unit: Unit) -> np.ndarray:
    """Of each example the first one that states the opposite of the first of its statements that anyone opposes; -1
    where there is none."""
    owners = array("q")

    def keys() -> Iterator[str]:
        for number, example in enumerate(examples):
            for statement in _statements(_prompt(example), list(_said(example)), unit):
                owners.append(number)
                yield from statement

    both = grouped(digests(keys()))
    own, opposite = both[0::2], both[1::2]
    owner = np.frombuffer(owners, dtype=np.int64)
    stated = np.full(both.max(initial=-1) + 1, -1, dtype=np.int64)
    stated[own[::-1]] = owner[::-1]  # the first one that states it is written last
    opposed = stated[opposite]
    against = np.full(len(examples), -1, dtype=np.int64)
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


def _statements(prompt: bytes, said: Sequence[_Said], unit: Unit) -> Iterator[tuple[str, str]]:
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
