"""What ranks need of a run: that all have the same, that one writes, that a job started anew finds its run."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tiltlm.config import Config
from tiltlm.config.resuming import Resume, made_of_stages
from tiltlm.distributed.joining import job
from tiltlm.distributed.ranks import Ranks
from tiltlm.errors import DataError, ModelError
from tiltlm.runs.folder import RunFolder

DATA_REPORT = "data_report.json"
"""The last file that is written before the work."""
JOB = ".job"
"""The file of a run's folder that says which job made it."""


def sign(folder: RunFolder) -> None:
    """Keeps by which job the run was begun, if by one of torchrun."""
    if (own := job()) is not None:
        (folder.path / JOB).write_text(own, encoding="utf-8")


def begun_by_this_job(run: Path) -> Resume | None:
    """The run to go on with where torchrun has started the job anew, as it does with --max-restarts after a rank was
    lost; None where this job has not begun it."""
    own, kept = job(), run / JOB
    same = own is not None and kept.is_file() and kept.read_text(encoding="utf-8") == own
    return Resume(run) if same else None


def begun_before(run: Path) -> Resume | None:
    """The run to go on with where its work began, whoever began it; None where it did not."""
    return Resume(run) if (run / DATA_REPORT).is_file() or made_of_stages(run) else None


@contextmanager
def passing_folder(config: Config) -> Iterator[tuple[Config, RunFolder]]:
    """The settings of a run whose records nobody reads, and a folder for them that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="tiltlm-rank-") as scratch:
        folder = RunFolder.create(Path(scratch), config.run.name, overwrite=False)
        run = dataclasses.replace(config.run, directory=scratch, trackers=())
        yield dataclasses.replace(config, run=run), folder


def require_same_models(ranks: Ranks, digest: str) -> None:
    """Compares the models that all ranks have, of which each will take a part.

    digest: of this rank's.

    Raises:
        ModelError: a rank has another model than the first one.
    """
    if not ranks.several:
        return
    every = ranks.gathered(digest)
    other = next((rank for rank, own in enumerate(every) if own != every[0]), None)
    if other is not None:
        raise ModelError(
            f"rank {other} has another model than rank 0, or other arithmetic: every machine must have the same files "
            "under the same name, and the same kind of device and processor (or set model.precision)."
        )


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
