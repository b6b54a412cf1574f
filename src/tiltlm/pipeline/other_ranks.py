"""A rank that is not the first: it does the same work, and leaves writing and speaking to the first one."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tiltlm.config import Config
from tiltlm.distributed.ranks import Ranks
from tiltlm.errors import DataError
from tiltlm.runs.folder import RunFolder


@contextmanager
def passing_folder(config: Config) -> Iterator[tuple[Config, RunFolder]]:
    """The settings of a run whose records nobody reads, and a folder for them that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="tiltlm-rank-") as scratch:
        folder = RunFolder.create(Path(scratch), config.run.name, overwrite=False)
        run = dataclasses.replace(config.run, directory=scratch, trackers=())
        yield dataclasses.replace(config, run=run), folder


def require_same_data(ranks: Ranks, own: Mapping[str, str]) -> None:
    """Compares what all ranks have read.

    Raises:
        DataError: a rank has other examples than the first one.
    """
    first = ranks.agreed(dict(own))
    other = [rank for rank, same in enumerate(ranks.gathered(first == dict(own))) if not same]
    if other:
        raise DataError(
            f"rank {other[0]} has read other examples than rank 0: every machine must have the same data under the "
            "same name, and the same versions of tiltlm, transformers and the tokenizer."
        )
