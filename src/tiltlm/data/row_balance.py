"""What became of every row of a source: rows read = rows used + rows dropped + rows left out by a limit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from tiltlm.data.row_names import row_digest
from tiltlm.data.selection import ReadData, Selection
from tiltlm.runs.data_account import Source


def balanced(read: ReadData, selection: Selection) -> tuple[Source, ...]:
    """The sources with what became of their rows.

    A row is used if an example of it is trained on or held out; else it is dropped if anything of it is listed with a
    reason; else `data.max_train_pairs`, `data.max_eval_pairs` or the weight of its source left it out.
    """
    trained, held_out = (_rows(part.names) for part in (selection.train, selection.eval))
    by_role = {"train": trained if read.held_out else np.union1d(trained, held_out), "eval": held_out}
    later = _rows(drop.id for drop in (*read.dropped, *selection.account.dropped))
    counted = []
    for part in read.loaded:
        own = np.unique(part.rows)
        rows_used = np.intersect1d(own, by_role[part.source.role], assume_unique=True)
        unused = np.setdiff1d(own, rows_used, assume_unique=True)
        dropped = np.union1d(_rows(drop.id for drop in part.dropped), np.intersect1d(unused, later))
        dropped = np.setdiff1d(dropped, rows_used, assume_unique=True)
        counted.append(
            replace(
                part.source,
                rows_used=len(rows_used),
                rows_dropped=len(dropped),
                rows_left_out=len(np.setdiff1d(unused, dropped, assume_unique=True)),
            )
        )
    return tuple(counted)


def _rows(ids: Iterable[str]) -> np.ndarray:
    """The rows of some examples, each once, by the digests of their names, sorted."""
    joined = bytearray()
    for id in ids:
        joined += row_digest(id)
    return np.unique(np.frombuffer(joined, dtype=np.uint64))
