"""Figures of single held-out pairs, for comparing runs over the same pairs."""

from __future__ import annotations

import numpy as np
import torch

from tiltlm.data.tokens.grouping import prompt_groups
from tiltlm.model.scoring import totals
from tiltlm.model.token_values import logps_of
from tiltlm.runs.held_out_pairs import HeldOutPair
from tiltlm.training.bound_objective import BoundObjective
from tiltlm.training.held_out import HeldOut, pair_margins


def held_out_pairs(saved: np.ndarray, held_out: HeldOut, objective: BoundObjective) -> tuple[HeldOutPair, ...]:
    """Each held-out pair under the saved model, or each list by its best and worst answers; none of other examples.

    Args:
        saved: float32 values of the examples' scored tokens (`BoundObjective.columns`).
    """
    columns = held_out.columns
    output = objective(objective.scored_columns(columns, saved, held_out.reference))
    margins = pair_margins(output.rewards_N, columns)
    if margins is None:
        return ()
    change_N = totals(logps_of(saved), columns).astype(np.float64) - totals(logps_of(held_out.start), columns)
    changes = pair_margins(torch.from_numpy(change_N), columns)
    assert changes is not None  # of examples that have margins
    named = zip(columns.names, prompt_groups(columns), margins.tolist(), changes.tolist(), strict=True)
    return tuple(HeldOutPair(*pair) for pair in named)
