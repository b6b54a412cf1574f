"""What a user should know of data that is used all the same: sentences with counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tiltlm.data.examples import Example, Text
from tiltlm.data.formats.layouts import ASSISTANT_HEADER, USER_HEADER
from tiltlm.data.formats.notation import decoded
from tiltlm.objectives.interface import CHOSEN, NOUNS, REJECTED, Unit

# Rows named in a note; their number is always given.
_NAMED = 3
# Columns on which answers often depend.
_CONTEXTS = ("system", "system_prompt", "history", "context", "tools", "functions", "documents", "passage", "images")
# What programs write where there is no text.
_NOTHING = frozenset({"nan", "na", "none", "null", "n/a", "<na>", "nat", "undefined"})


@dataclass(slots=True)
class Noted:
    """How many there are of which something is true, and the names of the first."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """One more."""
        self.count += 1
        if len(self.first) < _NAMED:
            self.first.append(name)

    def named(self) -> str:
        """The first, and whether there are more."""
        return ", ".join(self.first) + (", ..." if self.count > len(self.first) else "")


def notes_on_rows(unused: Mapping[str, int], remarks: Mapping[str, Noted]) -> list[str]:
    """Which columns went into no example, and what is odd about rows.

    unused: in how many rows each unused column holds something. remarks: what is odd, and of which rows.
    """
    notes = []
    columns = {name: count for name, count in unused.items() if not name.startswith("message key ")}
    keys = {name.removeprefix("message key "): count for name, count in unused.items() if name not in columns}
    if columns:
        listed = ", ".join(f"`{name or 'without a name'}` ({_rows(count)})" for name, count in columns.items())
        notes.append(f"Columns not used: {listed}.")
    if keys:
        notes.append(
            f"Keys of messages not used: {', '.join(f'{name} ({_rows(count)})' for name, count in keys.items())}."
        )
    notes += [_context_note(name, columns[name]) for name in _CONTEXTS if name in columns]
    notes += [f"{_rows(rows.count)} ({rows.named()}): {remark}" for remark, rows in remarks.items()]
    return notes


def _context_note(name: str, count: int) -> str:
    ways = {
        "system": "To make it a system turn: --data.format chat.",
        "tools": "To give it to the chat template: --data.format chat.",
        "history": "A list of pairs or of messages becomes turns in a chat: --data.format chat.",
        "images": "A model of text cannot be given it.",
    }
    other = f"If it is what a system turn says: --data.columns system={name}; else write it into the prompt."
    return f"`{name}` is not used in {_rows(count)}, and the answers may depend on it. {ways.get(name, other)}"


class NotesOnExamples:
    """What is unusual about examples, seen one after another."""

    def __init__(self) -> None:
        self._found = {what: Noted() for what in _NOTED}
        self._examples = 0

    def see(self, example: Example) -> None:
        """Takes in an example."""
        self._examples += 1
        for what, holds in _NOTED.items():
            if holds(example):
                self._found[what].add(example.id)

    def notes(self, unit: Unit = "pair") -> list[str]:
        """What is unusual, with counts.

        unit: what the objective learns from.
        """
        return [
            f"{those.count} of {self._examples} {NOUNS[unit]}s {what} First: {those.named()}."
            for what, those in self._found.items()
            if those.count
        ]


def _rows(count: int) -> str:
    return f"{count} row{'s' if count > 1 else ''}"


def _has_later_turns(example: Example) -> bool:
    return any(map(_goes_on, example.completions))


def _goes_on(completion: Text) -> bool:
    if isinstance(completion, str):
        return USER_HEADER in completion or ASSISTANT_HEADER in completion
    return any(message.role == "user" for message in completion)


def _repeats_prompt(example: Example) -> tuple[bool, bool]:
    """Whether a chosen and a rejected completion begin with the prompt, or with what its last turn says.

    Of what is no pair both or neither: nothing stands beside it to be told from.
    """
    prompt = _last_words(example.prompt).strip()
    repeat = [bool(prompt) and _first_words(text).lstrip().startswith(prompt) for text in example.completions]
    if not example.is_pair:
        return any(repeat), any(repeat)
    chosen, rejected = (
        any(does for does, label in zip(repeat, example.labels, strict=True) if label == wanted)
        for wanted in (CHOSEN, REJECTED)
    )
    return chosen, rejected


def _first_words(text: Text) -> str:
    return text if isinstance(text, str) else text[0].content if text else ""


def _last_words(text: Text) -> str:
    return text if isinstance(text, str) else text[-1].content if text else ""


def _is_nothing(example: Example) -> bool:
    return any(_first_words(text).strip().lower() in _NOTHING for text in example.completions)


def _is_listed(example: Example) -> bool:
    """Whether an answer is the JSON text of a list of texts."""
    texts = (_first_words(text).lstrip() for text in example.completions)
    lists = (decoded(text) for text in texts if text.startswith('["'))
    return any(isinstance(items, list) and all(isinstance(item, str) for item in items) for items in lists)


_NOTED: dict[str, Callable[[Example], bool]] = {
    "have further turns within a completion, as the dialogues part earlier. Those are scored, too.": _has_later_turns,
    "have completions that begin with the prompt, which then stands there twice.": (
        lambda example: _repeats_prompt(example) == (True, True)
    ),
    "have a chosen completion that begins with the prompt, where the rejected one does not: repeating the prompt is "
    "learnt.": lambda example: _repeats_prompt(example) == (True, False),
    "have a rejected completion that begins with the prompt, where the chosen one does not: not repeating the prompt "
    "is learnt.": lambda example: _repeats_prompt(example) == (False, True),
    "have `nan`, `None`, `null` or such as a whole answer: a program may have written it where there was none.": (
        _is_nothing
    ),
    "have the JSON text of a list as a whole answer, trained on as it stands. If it holds several, save a list, not "
    "its text.": _is_listed,
}
