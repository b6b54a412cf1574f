"""Lists of answers whose losses are asked for: from the arguments of `tiltlm.loss` to what an objective is given."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tiltlm.errors import ConfigError
from tiltlm.objectives.interface import CHOSEN, REJECTED, Needs, Scored
from tiltlm.plan.packing import lists_of

ANSWERS = "answers"
"""The argument with one list of log-probabilities for each prompt."""


def list_arguments(needs: Needs) -> tuple[str, ...]:
    """The arguments that an objective of lists takes: each one list of numbers for each list of answers."""
    reference = (f"reference_{ANSWERS}",) if needs.reference else ()
    counts = (f"{ANSWERS}_tokens",) if needs.counts else ()
    return (ANSWERS, *reference, *counts, "scores")


def listed(needs: Needs, rows: Mapping[str, list[Tensor]]) -> Scored:
    """What an objective is given of lists.

    Raises:
        ConfigError: a list has one answer, or arguments do not hold equally many.
    """
    answers = rows[ANSWERS]
    for argument, own in rows.items():
        if len(own) != len(answers):
            raise ConfigError(
                f"`{argument}` holds {len(own)} and `{ANSWERS}` {len(answers)}: they must hold equally many."
            )
        for number, (one, theirs) in enumerate(zip(own, answers, strict=True)):
            if len(one) != len(theirs):
                raise ConfigError(
                    f"`{argument}[{number}]` holds {len(one)} and `{ANSWERS}[{number}]` {len(theirs)}: they must hold "
                    "equally many."
                )
    if any(len(own) < 2 for own in answers):
        raise ConfigError(f"`{ANSWERS}` must hold two or more for each list: with one there is nothing to rank.")
    flat = {argument: torch.cat(own) for argument, own in rows.items()}
    device, scores = flat[ANSWERS].device, torch.cat(rows["scores"])
    best = [own == own.max() for own in rows["scores"]]
    counts = flat.get(f"{ANSWERS}_tokens", torch.ones_like(scores)).to(torch.int64)
    lists = lists_of(np.array([len(own) for own in answers]), scores.detach().cpu().numpy())
    return Scored(
        logps_N=flat[ANSWERS],
        tokens_N=counts,
        labels_N=torch.where(torch.cat(best), CHOSEN, REJECTED).to(torch.int8),
        reference_logps_N=flat.get(f"reference_{ANSWERS}"),
        scores_N=scores,
        list_UK=torch.from_numpy(lists).to(device),
        tokens_per_unit=float(counts.sum()) / len(answers),
    )
