"""What a run learnt from, in words: what its objective counts and compares."""

from __future__ import annotations

from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import NOUNS
from tiltlm.runs.outcomes import Summary


def unit(summary: Summary) -> str:
    """What the objective counts: a pair, an example whose answers are labelled one by one, a list, a demonstration."""
    objective = OBJECTIVES.get(summary.loss)
    return NOUNS["pair" if objective is None else objective.needs.unit]


def imitates(summary: Summary) -> bool:
    """Whether answers are imitated, and nothing is compared with them: there are no rewards."""
    return unit(summary) == NOUNS["demonstration"]


def method(summary: Summary) -> str:
    """What the model was trained with: what the objective calls itself, DPO in full."""
    objective = OBJECTIVES.get(summary.loss)
    name = "DPO" if objective is None else objective.what.partition(":")[0]
    return "Direct Preference Optimization" if name == "DPO" else name


def has_reference(summary: Summary) -> bool:
    """Whether rewards are relative to a reference, so that they are 0 before training."""
    objective = OBJECTIVES.get(summary.loss)
    return objective is None or objective.needs.reference
