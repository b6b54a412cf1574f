"""Pairs that are there more than once, and pairs that say the opposite of each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

from tiltlm.data.examples import Example, Text
from tiltlm.data.quality.findings import Names, finding, of_all, verb
from tiltlm.data.splitting import example_key
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
    """
    keys = [_keys(example) for example in examples]
    repeated = _repeated(keys, unit, name, noun)
    return [repeated] if unit == "demonstration" else [repeated, _contradictory(keys, unit, name, noun)]


def _keys(example: Example) -> tuple[bytes, tuple[_Said, ...]]:
    said = ((_digest(text), label) for text, label in zip(example.completions, example.labels, strict=True))
    return bytes.fromhex(example_key(example)), tuple(said)


def _digest(text: Text) -> bytes:
    plain = text if isinstance(text, str) else json.dumps([[m.role, m.content, m.further] for m in text])
    kind = b"text" if isinstance(text, str) else b"chat"
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16, person=kind).digest()


def _repeated(keys: Sequence[tuple[bytes, tuple[_Said, ...]]], unit: Unit, name: Names, noun: str) -> DataFinding:
    first: dict[object, int] = {}
    repeats: list[tuple[int, int]] = []
    for number, (prompt, said) in enumerate(keys):
        earlier = first.setdefault((prompt, frozenset(said)), number)
        if earlier != number:
            repeats.append((earlier, number))
    answer = _ANSWERS[unit]
    return finding(
        f"duplicate {noun}s",
        len(repeats),
        len(keys),
        f"{of_all(len(repeats), len(keys), noun)} {verb(len(repeats), 'repeats', 'repeat')} an earlier one: same "
        f"prompt, {answer}.",
        (FoundRow((name(number), name(earlier)), "repeats the second") for earlier, number in repeats),
        advice="Each counts as often as it is there. Remove the repeats unless that is meant.",
    )


def _contradictory(keys: Sequence[tuple[bytes, tuple[_Said, ...]]], unit: Unit, name: Names, noun: str) -> DataFinding:
    statements = [list(_statements(prompt, said, unit)) for prompt, said in keys]
    first: dict[object, int] = {}
    for number, said in enumerate(statements):
        for statement, _ in said:
            first.setdefault(statement, number)
    against = [next((first[turned] for _, turned in said if turned in first), None) for said in statements]
    found = [(number, other) for number, other in enumerate(against) if other is not None]
    what = _AGAINST[unit]
    # Both sides count; two that are each other's are listed once, by the later one.
    listed = ((number, other) for number, other in found if number >= other or against[other] != number)
    return finding(
        f"contradictory {noun}s",
        len(found),
        len(keys),
        f"{of_all(len(found), len(keys), noun)} {verb(len(found), 'contradicts', 'contradict')} {what}.",
        (FoundRow((name(number), name(other)), "contradicts the second") for number, other in listed),
        advice="What such ones teach cancels out, and no model can get both right. Keep the side that you trust.",
    )


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


def _statements(prompt: bytes, said: Sequence[_Said], unit: Unit) -> Iterator[tuple[object, object]]:
    """What an example states, each with its opposite."""
    if unit in ("pair", "list"):
        chosen, rejected = ([text for text, label in said if label == wanted] for wanted in (CHOSEN, REJECTED))
        for better in chosen:
            for worse in rejected:
                yield (prompt, better, worse), (prompt, worse, better)
    else:
        for text, label in said:
            yield (prompt, text, label), (prompt, text, REJECTED if label == CHOSEN else CHOSEN)
