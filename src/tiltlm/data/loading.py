"""From a name in the configuration to preference pairs, with an account of every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Literal

from tiltlm.config import DataConfig, HubConfig
from tiltlm.data.fields import RowError
from tiltlm.data.formats import ASSISTANT_HEADER, USER_HEADER, Convert, conversion, recognise_format, require_usable
from tiltlm.data.reading import Row
from tiltlm.data.sources import open_source
from tiltlm.errors import ConfigError, DataError
from tiltlm.records import DroppedPair, PreferencePair, Text

Role = Literal["train", "eval"]

# Rows by which a format is recognised.
_SAMPLE = 100


@dataclass(frozen=True, slots=True)
class SourceReport:
    """Where pairs came from: the name given, what for, the format and why, how many rows, the local files."""

    name: str
    role: Role
    format: str
    format_why: str
    rows: int
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadedPairs:
    """The pairs of a source in its order, what of it is not used, and what else a user should know."""

    pairs: list[PreferencePair]
    dropped: list[DroppedPair]
    source: SourceReport
    notes: list[str]


def load_pairs(spec: str | Path, data: DataConfig, hub: HubConfig, role: Role) -> LoadedPairs:
    """Reads all pairs that `spec` names: a file, a folder or a hub dataset. Every row ends in a pair or as dropped.

    role: whether `train_split` or `eval_split` is read, and which option messages name.

    Raises:
        DataError: nothing is found, its format is not known, or no pair of it can be used.
        ConfigError: an option is set that has no effect on this data.
    """
    name = str(spec)
    _require_effect(name, data, role)
    split = data.train_split if role == "train" else data.eval_split
    source = open_source(name, split, data.subset, hub.folder, option=f"data.{role}")
    sample = list(islice(source.rows, _SAMPLE))
    format_name, why = _format_of(sample, name, data)
    pairs, dropped, rows = _convert_all(chain(sample, source.rows), conversion(format_name, data.ranked_pairs))
    if not pairs:
        raise DataError(f"{name}: none of its {rows} rows, read as `{format_name}`, can be used: {_account(dropped)}")
    report = SourceReport(name, role, format_name, why, rows, source.files)
    return LoadedPairs(pairs, dropped, report, notes_on(pairs))


def notes_on(pairs: Sequence[PreferencePair]) -> list[str]:
    """What is unusual about pairs that are used all the same, in sentences with counts."""
    seen: set[tuple[Text, Text, Text]] = set()
    repeated = contradictory = 0
    for pair in pairs:
        contents = (pair.prompt, pair.chosen, pair.rejected)
        repeated += contents in seen
        contradictory += (pair.prompt, pair.rejected, pair.chosen) in seen
        seen.add(contents)
    later_turns = sum(_has_later_turns(pair.chosen) or _has_later_turns(pair.rejected) for pair in pairs)
    doubled = sum(_begins_with_prompt(pair) for pair in pairs)
    counted = {
        "repeat an earlier pair exactly. They are kept.": repeated,
        "prefer what an earlier pair of the same prompt rejects. They are kept.": contradictory,
        "have further turns within a completion, as the dialogues part earlier. Those are scored, too.": later_turns,
        "have completions that begin with the prompt, which then stands there twice.": doubled,
    }
    return [f"{count} of {len(pairs)} pairs {what}" for what, count in counted.items() if count]


def _require_effect(name: str, data: DataConfig, role: Role) -> None:
    """A split or subset says nothing about a single file: an error, unless the subset serves the other source."""
    path = Path(name).expanduser()
    if not path.is_file():
        return
    option, split, default = (
        ("train_split", data.train_split, DataConfig.train_split)
        if role == "train"
        else ("eval_split", data.eval_split, DataConfig.eval_split)
    )
    if split != default:
        raise ConfigError(f"data.{option} has no effect on the file {path.name}: remove it.")
    other = data.eval if role == "train" else data.train
    if data.subset is not None and (other is None or Path(other).expanduser().is_file()):
        raise ConfigError(f"data.subset has no effect on the file {path.name}: remove it.")


def _format_of(sample: Sequence[Row | DroppedPair], name: str, data: DataConfig) -> tuple[str, str]:
    readable = [row for row in sample if isinstance(row, Row)]
    if not sample:
        raise DataError(f"{name} holds no rows.")
    if not readable:
        unreadable = [row for row in sample if isinstance(row, DroppedPair)]
        raise DataError(f"{name}: none of its first {len(sample)} rows can be read: {_account(unreadable)}")
    if data.format != "auto":
        return data.format, "set by data.format"
    try:
        return recognise_format(readable)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _convert_all(
    rows: Iterable[Row | DroppedPair], convert: Convert
) -> tuple[list[PreferencePair], list[DroppedPair], int]:
    """The usable pairs of all rows, what is dropped, and how many rows there were."""
    pairs: list[PreferencePair] = []
    dropped: list[DroppedPair] = []
    count = 0
    for row in rows:
        count += 1
        for outcome in _outcomes(row, convert):
            if isinstance(outcome, PreferencePair):
                pairs.append(outcome)
            else:
                dropped.append(outcome)
    return pairs, dropped, count


def _outcomes(row: Row | DroppedPair, convert: Convert) -> Iterator[PreferencePair | DroppedPair]:
    """What becomes of one row: each of its pairs, or why not; at least one."""
    if isinstance(row, DroppedPair):
        yield row
        return
    try:
        pairs = convert(row)
    except RowError as problem:
        yield DroppedPair(row.id, problem.reason, problem.detail)
        return
    for pair in pairs:
        try:
            require_usable(pair)
        except RowError as problem:
            yield DroppedPair(pair.id, problem.reason, problem.detail)
        else:
            yield pair


def _account(dropped: Sequence[DroppedPair]) -> str:
    """How often each reason was met, the most frequent first, and where first."""
    first = {drop.reason: drop for drop in reversed(dropped)}
    counts = Counter(drop.reason for drop in dropped).most_common()
    cases = [f"{reason}: {count} (first {first[reason].id}: {first[reason].detail})" for reason, count in counts]
    return "; ".join(cases)


def _has_later_turns(completion: Text) -> bool:
    if isinstance(completion, str):
        return USER_HEADER in completion or ASSISTANT_HEADER in completion
    return any(message.role == "user" for message in completion)


def _begins_with_prompt(pair: PreferencePair) -> bool:
    texts = (pair.prompt, pair.chosen, pair.rejected)
    return all(isinstance(text, str) and text.startswith(str(pair.prompt)) for text in texts)
