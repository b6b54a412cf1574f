"""From what a row gives to what an objective learns from: pairs, labelled answers, lists, or answers to imitate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tiltlm.data.formats.fields import RowError
from tiltlm.data.formats.pairing import Parts
from tiltlm.data.formats.ranking import RankedPairs
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import CHOSEN, Unit

Choice = Literal["all", "best-worst", "list"]


@dataclass(frozen=True, slots=True)
class Taking:
    """How an objective takes data. of: what a row may give. cut: how ranked lists are cut; None: by the settings."""

    of: frozenset[Unit]
    cut: Choice | None = None


TAKING: Mapping[Unit, Taking] = {
    "pair": Taking(frozenset({"pair"})),
    "completion": Taking(frozenset({"pair", "completion"})),
    "list": Taking(frozenset({"pair"}), cut="list"),
    # Of a list the best is imitated: that of its best and its worst.
    "demonstration": Taking(frozenset({"pair", "completion", "demonstration"}), cut="best-worst"),
}


def takes(given: Unit, unit: Unit) -> bool:
    """Whether an objective that learns from `unit` can learn from rows that give `given`."""
    return given in TAKING[unit].of


def choice(ranked_pairs: RankedPairs, unit: Unit) -> Choice:
    """How a ranked list is cut for an objective."""
    return TAKING[unit].cut or ranked_pairs


def readers(given: Unit) -> list[str]:
    """The objectives that can learn from rows that give this, those that are made for it first."""
    able = [name for name, objective in OBJECTIVES.items() if takes(given, objective.needs.unit)]
    return sorted(able, key=lambda name: OBJECTIVES[name].needs.unit != given)


def as_unit(parts: Sequence[Parts], unit: Unit) -> list[Parts]:
    """What of a row's examples an objective learns from.

    Raises:
        RowError: nothing, as its answers are labelled bad.
    """
    return _demonstrations(parts) if unit == "demonstration" else list(parts)


def _demonstrations(parts: Sequence[Parts]) -> list[Parts]:
    """The answers that are good, each once: those that several pairs of a row prefer, too."""
    good: dict[object, Parts] = {}
    for one in parts:
        for completion, label in zip(one.completions, one.labels, strict=True):
            if label == CHOSEN:
                alone = replace(one, completions=(completion,), labels=(CHOSEN,), suffix="", scores=None)
                good.setdefault((one.prompt, completion, one.tools), alone)
    if not good:
        raise RowError("labelled bad", "its answer is labelled bad, and the objective imitates answers")
    if len(good) == 1:
        return list(good.values())
    return [replace(one, suffix=f"#answer{number}") for number, one in enumerate(good.values(), start=1)]
