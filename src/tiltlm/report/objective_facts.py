"""What a run's objective is, for words about the run: from its files, or from tiltlm's table for a run of before."""

from __future__ import annotations

from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import Objective
from tiltlm.runs.objective_record import ObjectiveRecord, RecordedNeeds


def record_of(objective: Objective, digest: str | None = None) -> ObjectiveRecord:
    """What is kept of an objective. digest: of a user's own."""
    return ObjectiveRecord(
        name=objective.name,
        what=objective.what,
        source=objective.source,
        needs=RecordedNeeds(unit=objective.needs.unit, reference=objective.needs.reference),
        digest=digest,
    )


def known_objective(name: str, recorded: ObjectiveRecord | None) -> ObjectiveRecord | None:
    """An objective of this name: as recorded, else as tiltlm has it; None where neither knows it."""
    if recorded is not None or name not in OBJECTIVES:
        return recorded
    return record_of(OBJECTIVES[name])
