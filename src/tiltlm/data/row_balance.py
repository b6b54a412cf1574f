"""What became of every row of a source: rows read = rows used + rows dropped + rows left out by a limit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from tiltlm.data.selection import ReadData, Selection
from tiltlm.runs.data_account import Source

# What tells the examples of one row from each other.
_SUFFIX = re.compile(r"#(\d+>\d+|answer\d+)$")


def row_of(example_id: str) -> str:
    """The name of the row that an example, or what was dropped, comes from."""
    return _SUFFIX.sub("", example_id)


def balanced(read: ReadData, selection: Selection) -> tuple[Source, ...]:
    """The sources with what became of their rows.

    A row is used if an example of it is trained on or held out; else it is dropped if anything of it is listed with a
    reason; else `data.max_train_pairs` or `data.max_eval_pairs` left it out.
    """
    trained, held_out = ({row_of(name) for name in part.names} for part in (selection.train, selection.eval))
    used = (trained, held_out) if len(read.loaded) > 1 else (trained | held_out,)
    later = {row_of(drop.id) for drop in (*read.dropped, *selection.account.dropped)}
    counted = []
    for part, rows_used in zip(read.loaded, used, strict=True):
        unused = _rows(example.id for example in part.examples) - rows_used
        dropped = (_rows(drop.id for drop in part.dropped) | (unused & later)) - rows_used
        counted.append(
            replace(
                part.source,
                rows_used=len(rows_used),
                rows_dropped=len(dropped),
                rows_left_out=len(unused - dropped),
            )
        )
    return tuple(counted)


def _rows(ids: Iterable[str]) -> set[str]:
    return set(map(row_of, ids))
