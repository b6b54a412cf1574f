"""What every stage of a run is handed besides its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.resumption import ReopenedRun
from tiltlm.pipeline.run_record import RunRecord
from tiltlm.pipeline.setup import Setup
from tiltlm.runs.folder import RunFolder
from tiltlm.training.stop import StopRequest


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A run at work: its settings on this machine, its folder, its record, who may stop it and who is told of it.

    before: the run as it was left, if it is one that goes on.
    model: the folder of the trained model. It is the first rank's, while the rest of the folder is each rank's own.
    """

    setup: Setup
    folder: RunFolder
    record: RunRecord
    stop: StopRequest
    reporter: Reporter
    before: ReopenedRun | None
    model: Path
