"""Which format rows have, and the conversion of a row by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from tiltlm.data.examples import Example, Text, contradictory
from tiltlm.data.files.raw_rows import Row, kind_of
from tiltlm.data.formats import layouts
from tiltlm.data.formats.endings import with_endings
from tiltlm.data.formats.fields import Fields, RowError, is_empty, require_characters
from tiltlm.data.formats.notation import is_list_notation
from tiltlm.data.formats.ranking import OrderError, RankedPairs
from tiltlm.data.formats.ratings import compare_ratings, margin_beside
from tiltlm.data.formats.refusals import not_taken, refusal
from tiltlm.data.formats.table import FORMATS
from tiltlm.data.formats.units import as_unit, choice, scored_as_needed, takes
from tiltlm.errors import ConfigError, DataError
from tiltlm.objectives.interface import CHOSEN, NOUNS, REJECTED, Scores, Unit


@dataclass(frozen=True, slots=True)
class Converted:
    """What a row gave. unused: columns with a value, and keys within columns, that went into no example."""

    examples: list[Example]
    unused: list[str]
    remarks: list[str]


Convert = Callable[[Row], Converted]


def recognise_format(
    rows: Sequence[Row], unit: Unit = "completion", renamed: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, str]:
    """The format that most of these rows have, and why in words.

    unit: what the objective learns from (units.py: from which rows it can).
    renamed: from columns' names here to those they have in the data, where these differ.

    Raises:
        DataError: no format or more than one fits, or one that gives nothing that the objective learns from; it lists
            the columns found and those expected.
    """
    votes = {name: sum(format.recognise(row.fields) for row in rows) for name, format in FORMATS.items()}
    votes |= {name: votes[name] + votes[f.takes] for name, f in FORMATS.items() if f.takes and votes[name]}
    most = max(votes.values())
    winners = [name for name, count in votes.items() if count == most]
    columns = dict.fromkeys(column for row in rows for column in row.fields)
    named = [f"`{renamed[name]}` (read as `{name}`)" if name in renamed else f"`{name}`" for name in columns]
    found = f"Columns found: {', '.join(named) or 'none'}."
    if most and len(winners) == 1:
        format = FORMATS[winners[0]]
        if not takes(format.unit, unit):
            raise DataError(f"{not_taken(format.unit, unit)} {found}")
        like = next(row.fields for row in rows if format.recognise(row.fields))
        _require_no_notation(rows)
        return winners[0], f"recognised in {most} of the first {len(rows)} rows: {format.expects(like)}"
    if most:
        raise DataError(f"the rows fit several formats: {', '.join(winners)}. {found} Set data.format to one of them.")
    for row in rows:
        if reason := refusal(row.fields):
            raise DataError(f"{reason} {found}")
    raise DataError(f"the rows fit no format. {found} {_nearest(rows[0].fields, unit)}\nFormats: {_listed()}.")


def _require_no_notation(rows: Sequence[Row]) -> None:
    """Raises a DataError where every text of a column is a program's notation of a list of texts."""
    for column in ("prompt", "chosen", "rejected", "completion"):
        values = [value for row in rows if not is_empty(value := row.fields.get(column))]
        if values and all(isinstance(value, str) and is_list_notation(value) for value in values):
            raise DataError(
                f"every `{column}` is Python's or numpy's text of a list, e.g. {values[0]!s:.60}: save lists as JSON "
                "lines or parquet. If these are the words themselves, set data.format."
            )


def _nearest(fields: Mapping[str, object], unit: Unit) -> str:
    """The format of which a row has most, of those that are taken, what it lacks, and how it may be given that."""
    lacks: list[tuple[float, str, list[str]]] = []
    for name, format in FORMATS.items():
        for needs in format.needs:
            missing = [column for column, kind in needs.items() if not kind.holds(fields.get(column))]
            of_use = takes(format.unit, unit) and (not format.takes or FORMATS[format.takes].unit != format.unit)
            if missing and len(missing) < len(needs) and of_use:
                absent = sum(0.5 if fields.get(column) is not None else 1.0 for column in missing)
                lacks.append((absent / len(needs), name, missing))
    if not lacks:
        return f"Other names are mapped to ours by {_mapping(['prompt', 'chosen', 'rejected'])}."
    _, name, missing = min(lacks, key=lambda lack: lack[0])
    kinds = next(needs for needs in FORMATS[name].needs if set(missing) <= needs.keys())
    wanted = [
        f"`{column}` ({kinds[column].words}"
        + (f", and it is {kind_of(fields[column])})" if fields.get(column) is not None else ")")
        for column in missing
    ]
    return f"Nearest is `{name}`, which lacks {', '.join(wanted)}. If another column holds it: {_mapping(missing)}."


def _mapping(columns: Sequence[str]) -> str:
    return f"--data.columns {' '.join(f'{column}=THEIRS' for column in columns)} (dotted paths lead into objects)"


def _listed() -> str:
    """Every format with the columns of its first set."""
    return "; ".join(
        f"{name} ({', '.join(f'`{column}`' for column in format.needs[0])})" for name, format in FORMATS.items()
    )


def conversion(
    name: str,
    ranked_pairs: RankedPairs,
    unit: Unit = "completion",
    scores: Scores = "none",
    endings: bool = True,
) -> Convert:
    """The function that makes a row of this format into examples.

    scores: those that the objective reads. endings: whether a column says of single answers if they ended.

    Raises:
        ConfigError: `ranked_pairs` is set, and has no effect on this format or this objective.
        DataError: the format does not give what `unit` asks for.
    """
    format = FORMATS[name]
    if not takes(format.unit, unit):
        raise DataError(f"data.format is `{name}`. {not_taken(format.unit, unit)}")
    if ranked_pairs != "all" and not format.ranks:
        raise ConfigError(f"data.ranked_pairs has no effect on the format `{name}`: remove it.")
    chosen = choice(ranked_pairs, unit)
    if ranked_pairs not in ("all", chosen) or (ranked_pairs != "all" and unit == "demonstration"):
        raise ConfigError(
            f"data.ranked_pairs has no effect on an objective that learns from {NOUNS[unit]}s: remove it."
        )
    layout: layouts.Layout = partial(format.layout, choose=chosen) if format.ranks else format.layout
    return partial(_convert, layout=layout, unit=unit, scores=scores, endings=endings)


def _convert(row: Row, layout: layouts.Layout, unit: Unit, scores: Scores, endings: bool) -> Converted:
    fields = Fields(row.fields)
    try:
        parts = as_unit(with_endings(fields, layout(fields), endings), unit)
    except OrderError as error:
        raise DataError(f"{row.id}: {error}") from error
    beside = compare_ratings(fields)
    if scores == "value" and beside is None:
        beside = margin_beside(fields)
    if beside is not None and len(parts) == 1 and parts[0].scores is None and parts[0].labels == (CHOSEN, REJECTED):
        parts = [replace(parts[0], scores=beside)]
    examples = [
        Example(
            f"{row.id}{p.suffix}",
            p.prompt,
            p.completions,
            p.labels,
            p.tools,
            scored_as_needed(p, unit, scores),
            p.ended,
        )
        for p in parts
    ]
    return Converted(examples, [*fields.unused(), *sorted(fields.ignored)], fields.remarks)


def require_usable(example: Example) -> None:
    """Raises a RowError for an example that nothing can be learnt from."""
    for part, text in (("prompt", example.prompt), *zip(example.names, example.completions, strict=True)):
        further = "" if isinstance(text, str) else "".join(value for message in text for _, value in message.further)
        roles = "" if isinstance(text, str) else "".join(message.role for message in text)
        require_characters(joined_text(text) + further + roles, f"`{part}`")
        if not joined_text(text).strip() and not further:
            raise RowError("empty prompt" if part == "prompt" else "empty completion", f"`{part}` holds no text")
    require_characters(example.tools or "", "`tools`")
    if contradictory(example.completions, example.labels):
        raise RowError("identical completions", "`chosen` and `rejected` are the same")
    if contradictory(example.completions, example.scores or example.labels):
        raise RowError("identical completions", "two completions of different scores are the same")


def joined_text(text: Text) -> str:
    """The words of a text or of all its messages, without roles."""
    return text if isinstance(text, str) else "".join(message.content for message in text)
