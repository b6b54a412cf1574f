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
TOKENS = f"{ANSWERS}_token_logps"
"""The one with a list of such lists for each prompt: of each answer one number a token."""


def list_arguments(needs: Needs) -> tuple[str, ...]:
    """The arguments that an objective of lists takes: each one list of numbers for each list of answers."""
    if needs.tokens:
        references = (f"reference_{ANSWERS}_token_logps",) if needs.reference else ()
        return (TOKENS, *references, f"{ANSWERS}_credit")
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


def listed_tokens(given: Mapping[str, list[list[Tensor]]]) -> Scored:
    """What an objective is given of lists of which every token is known. Answers stand in the order given.

    Raises:
        ConfigError: a list has one answer, or arguments do not hold equally many.
    """
    own = given[TOKENS]
    for argument, other in given.items():
        shapes = [[[len(answer) for answer in answers] for answers in values] for values in (own, other)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"`{argument}` and `{TOKENS}` differ in their numbers of prompts, answers or tokens: they must hold "
                "equally many."
            )
    if any(len(answers) < 2 for answers in own):
        raise ConfigError(f"`{TOKENS}` must hold two or more for each list: with one there is nothing to rank.")
    flat = {name: torch.cat([answer for answers in values for answer in answers]) for name, values in given.items()}
    counts = [len(answer) for answers in own for answer in answers]
    device, tokens_N = flat[TOKENS].device, torch.tensor(counts, device=flat[TOKENS].device)
    sequence_T = torch.arange(len(counts), device=device).repeat_interleave(tokens_N)
    reference_T = flat.get(f"reference_{TOKENS}")

    def sums(values_T: Tensor) -> Tensor:
        return values_T.new_zeros(len(counts)).index_add(0, sequence_T, values_T)

    lists = lists_of(np.array([len(answers) for answers in own]), np.zeros(len(counts), dtype=np.float32))
    return Scored(
        logps_N=sums(flat[TOKENS]),
        tokens_N=tokens_N,
        labels_N=torch.full((len(counts),), CHOSEN, dtype=torch.int8, device=device),
        reference_logps_N=None if reference_T is None else sums(reference_T),
        token_logps_T=flat[TOKENS],
        reference_token_logps_T=reference_T,
        sequence_T=sequence_T,
        offset_T=torch.cat([torch.arange(count, device=device) for count in counts]),
        credit_T=flat.get(f"{ANSWERS}_credit"),
        list_UK=torch.from_numpy(lists).to(device),
        tokens_per_unit=len(sequence_T) / len(own),
    )
