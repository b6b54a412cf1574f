"""What the saved model makes of each held-out pair: what two runs are compared by, pair by pair."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeldOutPair:
    """A held-out pair, scored in float32; or a list, whose best answers are its chosen one and its worst the rejected.

    prompt: the same number for pairs of one prompt.
    margin: of its rewards, in the objective's units. One above zero counts as right.
    change: log pi(chosen)/pi_0(chosen) - log pi(rejected)/pi_0(rejected) in nats, pi_0 being the model as loaded: by
        how much training moved the odds of the two answers. It means the same for every objective.
    """

    id: str
    prompt: int
    margin: float
    change: float
