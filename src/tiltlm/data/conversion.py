"""From a source of rows to examples, with an account of every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np

from tiltlm.config import DataConfig, HubConfig
from tiltlm.data.examples import Example
from tiltlm.data.files.raw_rows import Row
from tiltlm.data.files.sources import Source as OpenedSource
from tiltlm.data.files.sources import given_name, given_source, open_source
from tiltlm.data.formats.columns import Renaming, are_ours, renaming, require_found
from tiltlm.data.formats.endings import tell_endings
from tiltlm.data.formats.fields import RowError
from tiltlm.data.formats.recognition import Convert, conversion, recognise_format, require_usable
from tiltlm.data.formats.table import FORMATS
from tiltlm.data.notes import Noted, NotesOnExamples, notes_on_rows
from tiltlm.data.row_names import row_digest
from tiltlm.data.stored_examples import ExamplesBuilder
from tiltlm.errors import ConfigError, DataError
from tiltlm.objectives.interface import Scores, Unit
from tiltlm.runs.data_account import DroppedRow, Source

Role = Literal["train", "eval"]
GivenRows = Iterable[Mapping[str, object]]

# Rows by which a format is recognised.
_SAMPLE = 100


@dataclass(frozen=True, slots=True)
class Called:
    """How one of several sources is called.

    option: in messages. prefix: what the names of its rows begin with.
    """

    option: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class LoadedExamples:
    """The examples of a source in its order, what of it is not used, and what else a user should know.

    chats: whether there are chats among them (True), and texts as they stand (False). rows: digests of the names of the
    rows that they are of (`row_digest`), uint64. file_notes: those of the notes that are on its files, not on examples.
    """

    examples: Sequence[Example]
    dropped: list[DroppedRow]
    source: Source
    notes: list[str]
    chats: frozenset[bool]
    rows: np.ndarray = field(compare=False)
    file_notes: tuple[str, ...] = ()


def load_examples(
    source: str | Path | GivenRows,
    data: DataConfig,
    hub: HubConfig,
    role: Role,
    unit: Unit = "pair",
    scores: Scores = "none",
    called: Called | None = None,
) -> LoadedExamples:
    """Reads all examples of a source. Every row ends in at least one or as dropped.

    source: the name of a file, a folder or a hub dataset; or rows as dicts, such as a list or a `datasets.Dataset`.
    role: whether `train_split` or `eval_split` is read, and which option messages name.
    unit, scores: what the objective learns from and reads; rows that do not give it are refused.
    called: how the source is called where there are several; None: by its role.

    Raises:
        DataError: nothing is found, its format is not known, or no row of it can be used.
        ConfigError: an option is set that has no effect on this data.
    """
    name = str(source) if isinstance(source, str | Path) else given_name(source)
    _require_effect(source, data, role, called)
    opened = _opened(source, data, hub, role, called)
    rows = opened.rows
    sample = list(islice(rows, _SAMPLE))
    readable = [row for row in sample if isinstance(row, Row)]
    elsewhere = role == "eval" and are_ours(readable, data.columns)
    rename = renaming(readable, {} if elsewhere else data.columns)
    try:
        format_name, why = _format_of(sample, readable, rename, name, data, unit)
    except DataError:
        require_found(rename, readable, name)
        raise
    result = _convert_all(chain(sample, rows), rename, _conversion(format_name, data, unit, scores, readable, rename))
    require_found(rename, readable, name)
    examples = result.examples.examples()
    if not examples:
        raise DataError(
            f"{name}: none of its {result.rows} rows, read as `{format_name}`, can be used: {_account(result.dropped)}"
        )
    if details := FORMATS[format_name].details(rename(readable[0]).fields):
        why += f"; {details}"
    if rename.paths:
        why += f"; {rename.words()}"
    unused = dict(result.unused.most_common())
    report = Source(
        role=role,
        name=name,
        format=format_name,
        format_why=why,
        rows=result.rows,
        pairs=len(examples),
        files=opened.files,
        unused_columns=unused,
    )
    if elsewhere:
        opened.notes.append(f"{name} has the columns that data.columns maps to, so they are read as they are called.")
    notes = [*opened.notes, *notes_on_rows(unused, result.remarks), *result.seen.notes(unit)]
    forms, used = frozenset(result.forms), np.frombuffer(result.used, dtype=np.uint64)
    return LoadedExamples(examples, result.dropped, report, notes, forms, used, tuple(opened.notes))


def _opened(
    source: str | Path | GivenRows, data: DataConfig, hub: HubConfig, role: Role, called: Called | None
) -> OpenedSource:
    if not isinstance(source, str | Path):
        return given_source(source)
    split = data.train_split if role == "train" else data.eval_split
    opened = open_source(str(source), split, data.subset, hub.folder, called.option if called else f"data.{role}")
    if called is None or not called.prefix:
        return opened
    prefix = called.prefix
    return replace(opened, rows=(replace(row, id=prefix + row.id) for row in opened.rows))


def _require_effect(source: str | Path | GivenRows, data: DataConfig, role: Role, called: Called | None) -> None:
    """A split or subset says nothing about a file or rows: an error, unless the subset serves the other source."""
    what = "rows in memory"
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        what = f"the file {path.name}"
        if not path.is_file():
            return
    option, split, default = (
        ("train_split", data.train_split, DataConfig.train_split)
        if role == "train"
        else ("eval_split", data.eval_split, DataConfig.eval_split)
    )
    if split != default:
        option = f"`split` of {called.option}" if called else f"data.{option}"
        raise ConfigError(f"{option} has no effect on {what}: remove it.")
    other = data.eval if role == "train" else data.train
    if data.subset is not None and (other is None or Path(other).expanduser().is_file()):
        option = f"`subset` of {called.option}" if called else "data.subset"
        raise ConfigError(f"{option} has no effect on {what}: remove it.")


def _format_of(
    sample: Sequence[Row | DroppedRow],
    readable: Sequence[Row],
    rename: Renaming,
    name: str,
    data: DataConfig,
    unit: Unit,
) -> tuple[str, str]:
    if not sample:
        raise DataError(f"{name} holds no rows.")
    if not readable:
        unreadable = [row for row in sample if isinstance(row, DroppedRow)]
        raise DataError(f"{name}: none of its first {len(sample)} rows can be read: {_account(unreadable)}")
    if data.format != "auto":
        return data.format, "set by data.format"
    try:
        return recognise_format([rename(row) for row in readable], unit, rename.paths)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _conversion(
    format_name: str, data: DataConfig, unit: Unit, scores: Scores, readable: Sequence[Row], rename: Renaming
) -> Convert:
    endings = tell_endings(rename(row).fields for row in readable)
    return conversion(format_name, data.ranked_pairs, unit, scores, endings)


@dataclass(slots=True)
class _Result:
    """What all rows gave. rows: how many there were. unused: in how many rows each unused column holds something.
    remarks: what is odd about rows that are used, with how many they are and which. used: digests of their names.
    """

    examples: ExamplesBuilder = field(default_factory=ExamplesBuilder)
    dropped: list[DroppedRow] = field(default_factory=list)
    rows: int = 0
    unused: Counter[str] = field(default_factory=Counter)
    remarks: dict[str, Noted] = field(default_factory=dict)
    seen: NotesOnExamples = field(default_factory=NotesOnExamples)
    forms: set[bool] = field(default_factory=set)
    used: bytearray = field(default_factory=bytearray)


def _convert_all(rows: Iterable[Row | DroppedRow], rename: Renaming, convert: Convert) -> _Result:
    result = _Result()
    for row in rows:
        result.rows += 1
        if isinstance(row, DroppedRow):
            result.dropped.append(row)
        else:
            _convert_row(rename(row), convert, result)
    return result


def _convert_row(row: Row, convert: Convert, result: _Result) -> None:
    """Adds what becomes of one row: each of its examples, or why not; at least one."""
    try:
        converted = convert(row)
    except RowError as problem:
        result.dropped.append(DroppedRow(row.id, problem.reason, problem.detail))
        return
    used = False
    for example in converted.examples:
        try:
            require_usable(example)
        except RowError as problem:
            result.dropped.append(DroppedRow(example.id, problem.reason, problem.detail))
        else:
            result.examples.add(example)
            result.seen.see(example)
            result.forms.add(not isinstance(example.prompt, str))
            used = True
    if used:
        result.used += row_digest(row.id)
        result.unused.update(converted.unused)
        for remark in converted.remarks:
            result.remarks.setdefault(remark, Noted()).add(row.id)


def _account(dropped: Sequence[DroppedRow]) -> str:
    """How often each reason was met, the most frequent first, and where first."""
    first = {drop.reason: drop for drop in reversed(dropped)}
    counts = Counter(drop.reason for drop in dropped).most_common()
    cases = [f"{reason}: {count} (first {first[reason].id}: {first[reason].detail})" for reason, count in counts]
    return "; ".join(cases)
