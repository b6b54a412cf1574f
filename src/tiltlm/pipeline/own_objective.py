"""An objective of a user's own in a run: tried before any work, kept in its folder, part of what a state is of."""

from __future__ import annotations

from tiltlm.checkpoints.identity import OBJECTIVE
from tiltlm.config import LossConfig
from tiltlm.pipeline.reporter import Reporter
from tiltlm.report.objective_facts import record_of
from tiltlm.runs.folder import RunFolder
from tiltlm.runs.outcomes import Check
from tiltlm.training.objective_checks import check_objective

COPY = "objective.py"
"""The file of the run's folder that has the source of a user's own objective."""


def tried(loss: LossConfig) -> list[Check]:
    """The checks of a user's own objective; those that come with tiltlm are held to them by its tests.

    Raises:
        SelfCheckError: one failed.
    """
    return [] if loss.own is None else check_objective(loss.objective, loss.settings)


def say_tried(loss: LossConfig, reporter: Reporter) -> None:
    """The same before any work, and that it was done.

    Raises:
        SelfCheckError: one failed.
    """
    if checks := tried(loss):
        reporter.say(f"The objective {loss.name} was tried on random examples: {', '.join(c.name for c in checks)}")


def keep_objective(folder: RunFolder, loss: LossConfig) -> None:
    """Writes what a run's page needs of its objective, and a copy of the source of a user's own."""
    folder.write_json("objective.json", record_of(loss.objective, None if loss.own is None else loss.own.digest))
    if loss.own is not None:
        (folder.path / COPY).write_bytes(loss.own.source)


def of_objective(loss: LossConfig) -> dict[str, str]:
    """What a checkpoint is of, as far as a user's own objective goes; nothing of one that comes with tiltlm."""
    return {} if loss.own is None else {OBJECTIVE: f"{loss.name}, {loss.own.digest}"}
