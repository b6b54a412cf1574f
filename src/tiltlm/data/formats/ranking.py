"""From a list of completions, and what orders them, to pairs of a better and a worse one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, groupby
from operator import itemgetter
from typing import Literal

from tiltlm.data.examples import Text
from tiltlm.data.files.raw_rows import UNREADABLE, kind_of
from tiltlm.data.formats.fields import Fields, RowError, is_empty, look
from tiltlm.data.formats.messages import as_answer
from tiltlm.data.formats.notation import decoded, holds_messages

RankedPairs = Literal["all", "best-worst"]
Choice = Literal["all", "best-worst", "list"]
"""What is made of a list: pairs, as the settings say, or the list as it is."""
LIST_COLUMNS = ("completions", "responses", "answers", "generations", "candidates", "outputs", "samples")

# What orders completions, and the sign that makes higher better: as a column of one number per completion, or as a key
# of every completion; in the singular. The first that a row has is taken.
SIGNS = {
    "score": 1,
    "rating": 1,
    "reward": 1,
    "overall_score": 1,
    "overall_rating": 1,
    "preference_score": 1,
    "preference": 1,
    "average_rating": 1,
    "avg_rating": 1,
    "mean_rating": 1,
    "average_score": 1,
    "avg_score": 1,
    "mean_score": 1,
    "final_score": 1,
    "total_score": 1,
    "reward_score": 1,
    "rm_score": 1,
    "pm_score": 1,
    "human_score": 1,
    "human_rating": 1,
    "gpt4_score": 1,
    "quality": 1,
    "quality_score": 1,
    "fine_grained_score": 1,
    "elo": 1,
    "rank": -1,
    "ranking": -1,
}
# Which completion is the best: its number, counted from 0, or its text.
BEST_COLUMNS = ("best", "best_index", "best_idx", "best_id", "best_response", "best_completion", "chosen_index")
_TEXT_KEYS = ("text", "response", "completion", "content", "answer", "generation", "output", "messages")


class OrderError(Exception):
    """A row shows that the way its whole source is ordered is not understood."""


def canonical(name: str) -> str:
    """A column's name in small letters, words joined by `_`, in the singular: `overall_score` of `Overall-Scores`."""
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_").removesuffix("s")


def list_column(fields: Mapping[str, object]) -> str | None:
    """The column that holds the list of completions; None if there is none."""
    return next((column for column in LIST_COLUMNS if isinstance(decoded(look(fields, column)), list)), None)


def orders(fields: Mapping[str, object]) -> list[str]:
    """The columns, and keys of completions, that order the list of completions."""
    column = list_column(fields)
    items = decoded(look(fields, column)) if column else None
    if not isinstance(items, list):
        return []
    columns = {canonical(name): name for name in fields if isinstance(decoded(look(fields, name)), list)}
    keys = {canonical(key): key for item in items if isinstance(item, dict) for key in item if isinstance(key, str)}
    found = [columns[name] for name in SIGNS if name in columns]
    found += [f"{column}.{keys[name]}" for name in SIGNS if name in keys]
    return found + [name for name in BEST_COLUMNS if not is_empty(look(fields, name))]


def order_in_words(fields: Mapping[str, object]) -> str:
    """What orders the completions of rows like this one, and how."""
    names = orders(fields)
    if not names:
        return ""
    if names[0] in BEST_COLUMNS:
        return f"ordered by `{names[0]}`, the number (counted from 0) or the text of the best"
    better = "higher" if SIGNS[canonical(names[0].rpartition(".")[2])] > 0 else "lower"
    others = f"; {', '.join(f'`{name}`' for name in names[1:])} compared with it" if names[1:] else ""
    return f"ordered by `{names[0]}`, {better} is better{others}"


def ranked_texts(fields: Fields, as_chats: bool) -> tuple[list[Text], list[float], bool]:
    """The completions of a row, how good each is (higher is better), and whether only the order of that means anything.

    as_chats: completions that are text become what the assistant says.

    Raises:
        RowError: a completion is no text, its score is no number, or all are equally good.
        OrderError: the row does not fit the way in which the source is ordered.
    """
    column = list_column(fields)
    items = decoded(fields[column]) if column else None
    if column is None or not isinstance(items, list):
        raise RowError(UNREADABLE, f"there is no list of completions in {' or '.join(LIST_COLUMNS)}")
    where = [f"`{column}`, item {number}" for number in range(1, len(items) + 1)]
    texts = [_completion(item, place, fields, as_chats) for item, place in zip(items, where, strict=True)]
    names = orders(fields) or [name for name in fields if canonical(name) in SIGNS]
    if not names:
        raise RowError("no order", f"nothing says which of the {len(items)} completions is better")
    first, *others = (_scores(fields, name, column, items, texts) for name in names)
    _note_unread_keys(fields, column, items, names)
    for name, scores in zip(names[1:], others, strict=True):
        if _disagree(first, scores):
            fields.remarks.append(f"`{name}` orders the completions otherwise than `{names[0]}`, which is used.")
    if len(set(first)) < 2:
        raise RowError("no ranking", f"{len(texts)} completions, none better than another by `{names[0]}`")
    ordinal = names[0] in BEST_COLUMNS or SIGNS[canonical(names[0].rpartition(".")[2])] < 0
    return texts, first, ordinal


def _disagree(first: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two orders have a better one and a worse one of the other way round."""
    highest = -math.inf
    for _, equals in groupby(sorted(zip(first, other, strict=True)), key=itemgetter(0)):
        scores = [score for _, score in equals]
        if min(scores) < highest:
            return True
        highest = max(highest, *scores)
    return False


def all_pairs(scores: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Each (better, worse) of different scores."""
    pairs = ((i, j) if scores[i] > scores[j] else (j, i) for i, j in combinations(range(len(scores)), 2))
    return ((better, worse) for better, worse in pairs if scores[better] > scores[worse])


def best_and_worst(scores: Sequence[float]) -> Iterator[tuple[int, int]]:
    """The best against the worst; the first listed of several equals."""
    numbers = range(len(scores))
    yield max(numbers, key=scores.__getitem__), min(numbers, key=scores.__getitem__)


RANKED_PAIRS: dict[RankedPairs, Callable[[Sequence[float]], Iterator[tuple[int, int]]]] = {
    "all": all_pairs,
    "best-worst": best_and_worst,
}


def number(value: object, where: str) -> float:
    """A finite number, which may be given as text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise RowError(UNREADABLE, f"{where} holds `{value:.40}` where a number is expected") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError(UNREADABLE, f"{where} holds {kind_of(value)} where a number is expected")
    if isinstance(value, float) and not math.isfinite(value):
        raise RowError(UNREADABLE, f"{where} holds {value}, which orders nothing")
    return value


def _completion(item: object, where: str, fields: Fields, as_chats: bool) -> Text:
    item = decoded(item) if not isinstance(item, str) else item
    if isinstance(item, dict) and not holds_messages(item):
        key = next((key for key in _TEXT_KEYS if isinstance(item.get(key), str | list | dict)), None)
        if key is None:
            raise RowError(UNREADABLE, f"{where} is an object without {' or '.join(_TEXT_KEYS)}")
        item = item[key]
    if isinstance(item, str) and not as_chats and not holds_messages(item):
        return item
    if not isinstance(item, str) and not holds_messages(item):
        raise RowError(UNREADABLE, f"{where} is {kind_of(item)}, not text or an object with {' or '.join(_TEXT_KEYS)}")
    return as_answer(item, where, fields)


def _scores(fields: Fields, name: str, column: str, items: list[object], texts: list[Text]) -> list[float]:
    if name in BEST_COLUMNS:
        best = _best(fields[name], name, texts)
        return [float(place == best) for place in range(len(items))]
    key = name.removeprefix(f"{column}.") if name not in fields and name.startswith(f"{column}.") else None
    if key is not None:
        values = [item[key] for item in items if isinstance(item, dict) and item.get(key) is not None]
        if len(values) < len(items):
            raise RowError(UNREADABLE, f"only {len(values)} of {len(items)} completions have a `{key}`")
    else:
        listed = decoded(fields[name])
        if not isinstance(listed, list) or len(listed) != len(items):
            raise RowError(UNREADABLE, f"`{name}` is no list of {len(items)} numbers, one per completion")
        values = listed
    numbers = [number(value, f"`{key or name}`") for value in values]
    if key is None and canonical(name) == "ranking":
        _require_one_reading(numbers, name)
    return [SIGNS[canonical(key or name)] * value for value in numbers]


def _best(value: object, name: str, texts: list[Text]) -> int:
    """The number of the best completion."""
    if isinstance(value, str) and value in texts:
        return texts.index(value)
    at = number(value, f"`{name}`")
    if not 0 <= at < len(texts) or at != int(at):
        raise OrderError(
            f"`{name}` is {value!r} where there are {len(texts)} completions: it should be their number, counted from "
            "0. Where it counts from 1, subtract 1."
        )
    return int(at)


def _require_one_reading(values: list[float], name: str) -> None:
    """A `ranking` may hold each completion's rank, or the completions' numbers, the best first."""
    for first in (0, 1):
        if sorted(values) == list(range(first, first + len(values))):
            at = [int(value) - first for value in values]
            if any(at[rank] != place for place, rank in enumerate(at)):
                raise RowError(
                    "order not known",
                    f"`{name}` {values} is either each completion's rank or their numbers, best first, and the two "
                    f"disagree. For the former: --data.columns ranks={name}",
                )


def _note_unread_keys(fields: Fields, column: str, items: list[object], names: list[str]) -> None:
    ordering = {name.removeprefix(f"{column}.") for name in names}
    for item in items:
        if isinstance(item, dict) and not holds_messages(item):
            text = next((key for key in _TEXT_KEYS if isinstance(item.get(key), str | list | dict)), None)
            extra = {key for key, value in item.items() if key != text and key not in ordering and not is_empty(value)}
            fields.ignored |= {f"{column}.{key}" for key in extra}
