"""Other names for the columns that formats know: those that are plain, and those that `data.columns` gives."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tiltlm.config.column_names import COLUMNS
from tiltlm.data.files.raw_rows import Row
from tiltlm.data.formats.notation import decoded
from tiltlm.errors import DataError

# Names of a better and a worse answer, where there is no `chosen` and `rejected`.
_SIDES = (
    ("chosen_response", "rejected_response"),
    ("chosen_messages", "rejected_messages"),
    ("chosen_conversations", "rejected_conversations"),
    ("chosen_answer", "rejected_answer"),
    ("chosen_completion", "rejected_completion"),
    ("response_chosen", "response_rejected"),
    ("answer_chosen", "answer_rejected"),
    ("preferred", "dispreferred"),
    ("preferred_response", "dispreferred_response"),
    ("preferred_response", "non_preferred_response"),
    ("preferred", "rejected"),
    ("accepted", "rejected"),
    ("winner", "loser"),
    ("better", "worse"),
)
# Other names of a column, where its own is not there.
_OTHERS = {
    "system": ("system_prompt", "system_message"),
    "tools": ("functions",),
    "conversations": ("conversation", "trajectory"),
    "question": ("query",),
}


@dataclass(frozen=True, slots=True)
class Renaming:
    """From our names of columns to theirs, which may be dotted paths into objects and lists.

    missing: the paths of `data.columns` that no row has had so far.
    """

    paths: Mapping[str, str]
    missing: set[str] = field(default_factory=set)

    def __call__(self, row: Row) -> Row:
        if not self.paths:
            return row
        found = {ours: value_at(row.fields, path) for ours, path in self.paths.items()}
        found = {ours: value for ours, value in found.items() if value is not None}
        self.missing.difference_update(self.paths[ours] for ours in found)
        taken = {column for path in self.paths.values() for column in _columns(row.fields, path)}
        kept = {name: value for name, value in row.fields.items() if name not in taken and name not in self.paths}
        # A column whose name another one takes is still there, to be named as unused.
        hidden = {
            f"{ours} (hidden)": row.fields[ours] for ours in self.paths if ours in row.fields and ours not in taken
        }
        return Row(row.id, found | kept | hidden)

    def words(self) -> str:
        """What is read as what, as the end of a sentence."""
        return ", ".join(f"`{theirs}` as `{ours}`" for ours, theirs in self.paths.items())


def renaming(rows: Sequence[Row], given: Mapping[str, str]) -> Renaming:
    """The names by which these rows' columns are read. given: `data.columns`; it wins."""
    names = list(dict.fromkeys(name for row in rows for name in row.fields))
    plain = {name: re.sub(r"[\s-]+", "_", name.strip().lower()) for name in names}
    paths = {ours: name for name, ours in plain.items() if ours != name and ours in COLUMNS and ours not in names}
    # By their plain names, so that `Chosen Response` is found, too.
    by_plain = {ours: name for name, ours in plain.items()}
    if not {"chosen", "rejected"} <= by_plain.keys():
        sides = next((sides for sides in _SIDES if by_plain.keys() >= set(sides)), None)
        if sides is not None:
            paths |= {ours: by_plain[name] for ours, name in zip(("chosen", "rejected"), sides, strict=True)}
    for ours, others in _OTHERS.items():
        if ours not in by_plain and (other := next((name for name in others if name in by_plain), None)):
            paths[ours] = by_plain[other]
    # A column that `data.columns` names is that and nothing else.
    mapped = {column for path in given.values() for column in _columns(dict.fromkeys(names), path)}
    paths = {ours: theirs for ours, theirs in paths.items() if theirs not in mapped}
    paths = {ours: theirs for ours, theirs in (paths | dict(given)).items() if ours != theirs}
    return Renaming(paths, set(given.values()) - {theirs for ours, theirs in given.items() if ours == theirs})


def are_ours(rows: Sequence[Row], given: Mapping[str, str]) -> bool:
    """Whether these rows have our names already, and none of the paths of `data.columns`: those of another source."""
    names = {name for row in rows for name in row.fields}
    elsewhere = all(value_at(row.fields, path) is None for row in rows for path in given.values())
    return bool(given) and elsewhere and names >= given.keys()


def require_found(renaming: Renaming, rows: Sequence[Row], name: str) -> None:
    """Raises a DataError where a path of `data.columns` leads nowhere in any row."""
    if not renaming.missing or not rows:
        return
    path = min(renaming.missing)
    known = [path for row in rows[:1] for path in _paths(row.fields)]
    near = difflib.get_close_matches(path, known, n=3, cutoff=0.5)
    hint = (
        f"Did you mean {' or '.join(f'`{one}`' for one in near)}?" if near else f"There are: {', '.join(known[:30])}."
    )
    raise DataError(f"{name}: data.columns names `{path}`, which no row has. {hint}")


def value_at(fields: Mapping[str, object], path: str) -> object:
    """The value at a dotted path: through objects by key, through lists by number, or by a key of all their items; of
    several paths, with commas between them, the list of their values.
    """
    if path in fields:
        return fields[path]
    if "," in path:
        values = [value_at(fields, part) for part in path.split(",")]
        return None if any(value is None for value in values) else values
    value: object = fields
    for step in path.split("."):
        value = _step(decoded(value) if isinstance(value, str) else value, step)
    return value


def _columns(fields: Mapping[str, object], path: str) -> list[str]:
    """The columns that a path begins with."""
    return [path] if path in fields else [part if part in fields else part.split(".")[0] for part in path.split(",")]


def _step(value: object, step: str) -> object:
    if isinstance(value, Mapping):
        return value.get(step)
    if not isinstance(value, list):
        return None
    if step.isdecimal():
        return value[int(step)] if int(step) < len(value) else None
    items = [_step(item, step) for item in value]
    return None if all(item is None for item in items) else items


def _paths(fields: Mapping[str, object], before: str = "", depth: int = 3) -> list[str]:
    """The columns of a row and the paths within them."""
    paths = []
    for name, value in fields.items():
        paths.append(f"{before}{name}")
        inner = decoded(value)
        inner = inner[0] if isinstance(inner, list) and inner else inner
        if isinstance(inner, dict) and depth:
            paths += _paths(inner, f"{before}{name}.", depth - 1)
    return paths
