"""Figures of single held-out pairs, for comparing runs over the same pairs."""

from __future__ import annotations

import numpy as np

from tiltlm.data.tokens.grouping import prompt_groups
from tiltlm.model.scoring import totals
from tiltlm.runs.held_out_pairs import HeldOutPair
from tiltlm.training.bound_objective import BoundObjective
from tiltlm.training.held_out import HeldOut, pair_margins


def held_out_pairs(saved: np.ndarray, held_out: HeldOut, objective: BoundObjective) -> tuple[HeldOutPair, ...]:
    """Each held-out pair under the saved model; none where the examples are no pairs.

    Args:
        saved: float32 log-probabilities of the examples' scored tokens, in nats.
    """
    columns = held_out.columns
    output = objective(objective.scored_columns(columns, saved, held_out.reference))
    margins = pair_margins(output.rewards_N, columns)
    if margins is None:
        return ()
    change_N = totals(saved, columns).astype(np.float64) - totals(held_out.start, columns)
    sides = change_N[columns.labels >= 0].reshape(-1, 2)
    changes = (sides[:, 0] - sides[:, 1]).tolist()
    named = zip(columns.names, prompt_groups(columns), margins.tolist(), changes, strict=True)
    return tuple(HeldOutPair(*pair) for pair in named)
