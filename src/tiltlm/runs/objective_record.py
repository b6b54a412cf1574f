"""`objective.json`: what of a run's objective is told on its page, so that its code need not be there to read it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedNeeds:
    """What its units are, and whether its rewards are relative to a reference."""

    unit: str = "pair"
    reference: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveRecord:
    """An objective: its name in the settings, a sentence on it, and the address of its source.

    digest: SHA-256 of the file of a user's own objective, of which the run's folder has a copy, `objective.py`; None of
        one that comes with tiltlm.
    """

    name: str
    what: str
    source: str | None = None
    needs: RecordedNeeds = field(default_factory=RecordedNeeds)
    digest: str | None = None
