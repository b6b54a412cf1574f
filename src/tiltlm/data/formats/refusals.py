"""Data that people have and that no objective, or not the chosen one, learns from: recognised to say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tiltlm.data.formats.fields import RowError
from tiltlm.data.formats.notation import decoded
from tiltlm.data.formats.ranking import list_column, number
from tiltlm.data.formats.units import readers
from tiltlm.objectives.interface import Unit


def refusal(fields: Mapping[str, object]) -> str | None:
    """Why a row holds no pair, if it is of a kind that is known; a sentence or two."""
    return next((reason(fields) for holds, reason in _REFUSALS if holds(fields)), None)


def not_taken(given: Unit, unit: Unit) -> str:
    """Why an objective that learns from `unit` cannot learn from rows that give `given`, and which objectives can."""
    names = readers(given)
    able = f"Objectives that take them: {', '.join(names)} (--loss.name {names[0]})."
    return f"{_NOT_TAKEN[given].format(_WANTED[unit])} {able}"


_WANTED: Mapping[Unit, str] = {
    "pair": "pairs: a prompt with two answers, of which one is better",
    "completion": "answers that are labelled good or bad",
    "list": "answers to one prompt in an order, two or more",
    "demonstration": "answers to imitate",
}
_NOT_TAKEN: Mapping[Unit, str] = {
    "completion": "Single labelled answers (as for KTO) are no pairs, and the chosen objective needs {}.",
    "demonstration": (
        "Each row has one answer (as for supervised fine-tuning), and the chosen objective needs {}. If another column "
        "holds a second, worse answer: --data.columns chosen=THEIRS rejected=THEIRS. If one says whether the answer is "
        "good: --data.columns label=THEIRS."
    ),
}


def _is_stepwise(fields: Mapping[str, object]) -> bool:
    column = list_column(fields)
    items, labels = decoded(fields.get(column or "")), decoded(fields.get("labels"))
    if not isinstance(items, list) or not isinstance(labels, list) or not labels or len(labels) != len(items):
        return False
    return all(isinstance(label, bool) or label in (0, 1) for label in labels)


def _is_unranked(fields: Mapping[str, object]) -> bool:
    return list_column(fields) is not None and "chosen" not in fields


def _unranked(fields: Mapping[str, object]) -> str:
    column = list_column(fields)
    items = decoded(fields.get(column or ""))
    count = len(items) if isinstance(items, list) else 0
    near = next(
        (name for name, value in fields.items() if name != column and _are_numbers(decoded(value), count)), None
    )
    best = next((name for name, value in fields.items() if _is_number_of(value, count)), None)
    hint = ""
    if near is not None:
        hint = f" `{near}` may be it: --data.columns scores={near} where higher is better, else ranks={near}."
    elif best is not None:
        hint = f" If `{best}` is the number of the best one, counted from 0: --data.columns best_index={best}."
    return (
        f"`{column}` holds {count} answers, and nothing that is known to order them: being first is not being best. "
        "Order comes from a list of one number per answer, or a key of every answer, called score, rating, reward, "
        "overall_score and the like (higher is better) or rank (lower is better), or from a column best_index; "
        f"docs/data.md lists all.{hint}"
    )


def _is_number_of(value: object, count: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count


def _are_numbers(value: object, count: int) -> bool:
    if not isinstance(value, list) or len(value) != count or not value:
        return False
    try:
        return [number(item, "") for item in value] != []
    except RowError:
        return False


_INSIDE = frozenset({"prompt", "chosen", "rejected", "messages", "instruction", "question", "conversations"})


def _wrapping(fields: Mapping[str, object]) -> str | None:
    """The column that holds whole rows."""
    for column, value in fields.items():
        items = decoded(value)
        if isinstance(items, list) and items and isinstance(items[0], dict) and len(_INSIDE & items[0].keys()) > 1:
            return column
    return None


Holds = Callable[[Mapping[str, object]], bool]
_REFUSALS: tuple[tuple[Holds, Callable[[Mapping[str, object]], str]], ...] = (
    (
        lambda fields: _wrapping(fields) is not None,
        lambda fields: f"Rows seem to stand in a list under `{_wrapping(fields)}`: keep that list alone in the file.",
    ),
    (
        _is_stepwise,
        lambda fields: (
            f"`{list_column(fields)}` with one true or false of `labels` each are labelled steps or samples "
            "(stepwise supervision), not alternatives in an order: they are no pairs."
        ),
    ),
    (_is_unranked, _unranked),
)
