"""From what a row gives to what an objective learns from: pairs, labelled answers, lists, or answers to imitate."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tiltlm.data.formats.fields import RowError
from tiltlm.data.formats.pairing import Parts
from tiltlm.data.formats.ranking import Choice, RankedPairs
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import CHOSEN, REJECTED, Scores, Unit


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


def scored_as_needed(one: Parts, unit: Unit, scores: Scores) -> tuple[float, ...] | None:
    """The scores of an example's answers, as an objective reads them: always some where it does.

    Raises:
        RowError: it reads values and there are none; or a chosen answer is scored no higher than a rejected one.
    """
    if scores == "value":
        if one.scores is None or one.ordinal:
            raise RowError("no scores", f"the objective reads a score of each answer{_ORDINAL * one.ordinal}: {_WHERE}")
        _require_agreement(one, one.scores)
    if unit == "list" and one.scores is None:
        return tuple(float(label) for label in one.labels)
    if one.scores is None or (one.ordinal and unit != "list"):
        return None
    if scores == "none" and max(map(abs, one.scores)) > LARGEST:
        return None
    kept = tuple(map(_single, one.scores))
    if unit == "list" and len(set(kept)) < 2:
        raise RowError("no ranking", f"its scores are the same in single precision, {kept[0]:g}")
    return kept


LARGEST = 1e38
"""Scores beyond are not kept: single precision ends soon after."""
_WHERE = (
    "beside pairs in columns such as score_chosen and score_rejected, chosen_rating and rejected_rating, or margin; of "
    "lists in a list such as scores, ratings or rewards"
)
_ORDINAL = ", of which the data has the order alone"


def _require_agreement(one: Parts, scores: Sequence[float]) -> None:
    by_label = {
        label: [_single(score) for score, own in zip(scores, one.labels, strict=True) if own == label]
        for label in (CHOSEN, REJECTED)
    }
    if by_label[CHOSEN] and by_label[REJECTED] and min(by_label[CHOSEN]) <= max(by_label[REJECTED]):
        better, worse = min(by_label[CHOSEN]), max(by_label[REJECTED])
        raise RowError(
            "not scored higher", f"the chosen answer's score, {better:g}, is not above the rejected one's, {worse:g}"
        )


def _single(score: float) -> float:
    """A score as it is kept, in single precision."""
    if abs(score) > LARGEST:
        raise RowError("no scores", f"the score {score:g} is beyond what is kept, {LARGEST:g}")
    kept: float = struct.unpack("<f", struct.pack("<f", score))[0]
    return kept


def _demonstrations(parts: Sequence[Parts]) -> list[Parts]:
    """The answers that are good, each once: those that several pairs of a row prefer, too."""
    good: dict[object, Parts] = {}
    for one in parts:
        endings = one.ended or (True,) * len(one.labels)
        for completion, label, ended in zip(one.completions, one.labels, endings, strict=True):
            if label == CHOSEN:
                alone = replace(
                    one,
                    completions=(completion,),
                    labels=(CHOSEN,),
                    suffix="",
                    scores=None,
                    ended=None if ended else (False,),
                )
                good.setdefault((one.prompt, completion, one.tools, ended), alone)
    if not good:
        raise RowError("labelled bad", "its answer is labelled bad, and the objective imitates answers")
    if len(good) == 1:
        return list(good.values())
    return [replace(one, suffix=f"#answer{number}") for number, one in enumerate(good.values(), start=1)]
