"""What an objective needs and what it may be given, in words: for `tiltlm objectives` and the table of its page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from tiltlm.objectives import dpo
from tiltlm.objectives.interface import Needs, Objective, Unit

UNITS: Mapping[Unit, str] = {
    "pair": "pairs",
    "completion": "single answers",
    "list": "lists of answers",
    "demonstration": "answers to imitate",
}
"""What an objective learns from."""

_RANGES = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "up to"}


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of an objective: its name, its own default, what it may be, and what it does."""

    name: str
    default: object
    allowed: str
    text: str


def needed(objective: Objective) -> list[str]:
    """What a run must provide for it: `pairs`, `a reference`, `the whole batch at once`."""
    needs = objective.needs
    named = {
        UNITS[needs.unit]: True,
        "a reference": needs.reference,
        "whole distributions": needs.live,
        "the reference as a model": objective.live_reference,
        "numbers of tokens": needs.counts,
        "values of single tokens": needs.tokens,
        "the spread of each token's distribution": needs.squares,
        "answers in an order": needs.scores == "order",
        "a score of each answer": needs.scores == "value",
        "what each token did for the score": needs.credit,
        "the whole batch at once": needs.coupled,
        "statistics from step to step": objective.running is not None,
        "mismatched answers": needs.mismatched,
    }
    return [words for words, holds in named.items() if holds]


def settings_in_words(objective: Objective) -> list[Setting]:
    """Its settings, in the order of their declaration."""
    fields = TypeAdapter(objective.settings).json_schema().get("properties", {})
    return [
        Setting(name, field["default"], _allowed(field), " ".join(field.get("description", "").split()))
        for name, field in fields.items()
    ]


def _allowed(field: Mapping[str, Any]) -> str:
    bounds = [f"{words} {field[bound]:g}" for bound, words in _RANGES.items() if bound in field]
    *others, last = [f"`{choice}`" for choice in field.get("enum", ("",))]
    return ", ".join(bounds) or " or ".join([", ".join(others), last] if others else [last])


def grouped(objectives: Iterable[Objective]) -> dict[str, list[Objective]]:
    """By what they learn from: `Pairs, with a reference`. Families, which are files, stay together, DPO's first."""
    groups: dict[str, list[Objective]] = {}
    for objective in sorted(objectives, key=_place):
        groups.setdefault(_group(objective.needs), []).append(objective)
    return groups


def _place(objective: Objective) -> tuple[int, bool, bool]:
    needs = objective.needs
    return list(UNITS).index(needs.unit), not needs.reference, objective.loss.__module__ != dpo.__name__


def _group(needs: Needs) -> str:
    held = "with a reference" if needs.reference else "without a reference"
    return f"{UNITS[needs.unit].capitalize()}, {held}"
