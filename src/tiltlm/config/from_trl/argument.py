"""What an argument of a TRL script is, and what becomes of it here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "whole", "switch", "text", "texts", "numbers", "table", "any"]

TRL = "1.16.0"
"""The version whose arguments and defaults the tables hold."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of TRL.

    default: what it is where it is not given.
    ours: the options (`section.option`) that it decides, alone or with others; none where it has no counterpart.
    says: how its value is translated; or, without a counterpart, why there is none, or what to do instead.
    moot: without a counterpart, and no result changes for it.
    neutral: values beside the default that ask for nothing.
    now: the argument's present name, where this is a former one of the same meaning.
    """

    name: str
    kind: Kind
    default: object
    ours: tuple[str, ...] = ()
    says: str = ""
    moot: bool = False
    neutral: tuple[object, ...] = ()
    now: str | None = None

    def asks(self, value: object) -> bool:
        """Whether a value asks for something else than nothing."""
        return value is not None and value != self.default and value not in self.neutral


def mapped(name: str, kind: Kind, default: object, ours: str, says: str = "", *neutral: object) -> Argument:
    """An argument with a counterpart. ours: options, separated by spaces."""
    return Argument(name, kind, default, tuple(ours.split()), says, neutral=neutral)


def lost(name: str, kind: Kind, default: object, says: str, *neutral: object) -> Argument:
    """An argument that is named when it is given: what it asks for is not done."""
    return Argument(name, kind, default, says=says, neutral=neutral)


def moot(name: str, kind: Kind, default: object, says: str, *neutral: object) -> Argument:
    """An argument that nothing depends on here."""
    return Argument(name, kind, default, says=says, moot=True, neutral=neutral)


def renamed(name: str, now: str) -> Argument:
    """A former name."""
    return Argument(name, "any", None, says=f"Former name of `{now}`.", now=now)
