"""Sequences with log-probabilities, from a few numbers, as an objective is given them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED, Needs, Objective, Scored


@dataclass(frozen=True)
class Completion:
    """A completion's log-probabilities, token by token, under policy and reference; float64, shape (tokens,)."""

    label: int
    policy: Tensor
    reference: Tensor


Example = Sequence[Completion]


def tokens_per_unit(examples: Sequence[Example], needs: Needs) -> float:
    """Of these examples, which are a whole batch: the mean number of tokens of a unit's labelled completions."""
    counts = [len(one.policy) for example in examples for one in example if one.label != MISMATCHED]
    return sum(counts) / (len(counts) if needs.unit == "completion" else len(examples))


def scored(examples: Sequence[Example], needs: Needs, batch: Sequence[Example] | None = None) -> Scored:
    """The sequences of examples in their order, with what an objective of these needs may read and nothing else.

    batch: the whole batch that they are of; None where they are all of it.
    """
    sequences = [completion for example in examples for completion in example]
    counts_N = torch.tensor([len(completion.policy) for completion in sequences])
    sequence_T = torch.repeat_interleave(torch.arange(len(sequences)), counts_N)
    policy_T = torch.cat([completion.policy for completion in sequences])
    reference_T = torch.cat([completion.reference for completion in sequences])
    return Scored(
        logps_N=_sums(policy_T, sequence_T, len(sequences)),
        tokens_N=counts_N,
        labels_N=torch.tensor([completion.label for completion in sequences], dtype=torch.int8),
        reference_logps_N=_sums(reference_T, sequence_T, len(sequences)) if needs.reference else None,
        token_logps_T=policy_T if needs.tokens else None,
        reference_token_logps_T=reference_T if needs.tokens and needs.reference else None,
        sequence_T=sequence_T if needs.tokens else None,
        offset_T=torch.cat([torch.arange(int(count)) for count in counts_N]) if needs.tokens else None,
        tokens_per_unit=tokens_per_unit(examples if batch is None else batch, needs),
    )


def with_running(given: Scored, objective: Objective, settings: Any, moved: bool = True) -> Scored:
    """The same with the statistics that the objective keeps, before this batch, or moved by it."""
    kept = objective.running
    if kept is None:
        return given
    start = {name: given.logps_N.new_tensor(value) for name, value in kept.start(settings).items()}
    started = replace(given, running=start)
    return replace(given, running=kept.moved(started, settings)) if moved else started


def _sums(values_T: Tensor, sequence_T: Tensor, sequences: int) -> Tensor:
    return values_T.new_zeros(sequences).index_add(0, sequence_T, values_T)


def pairs(
    chosen: Sequence[float],
    rejected: Sequence[float],
    reference_chosen: Sequence[float],
    reference_rejected: Sequence[float],
    tokens: tuple[int, int] = (1, 1),
) -> Scored:
    """Pairs from sums, all chosen completions of `tokens[0]` tokens and all rejected ones of `tokens[1]`."""

    def side_by_side(first: Sequence[float], second: Sequence[float]) -> Tensor:
        return torch.tensor([first, second], dtype=torch.float64).T.flatten()

    return Scored(
        logps_N=side_by_side(chosen, rejected),
        tokens_N=torch.tensor(tokens * len(chosen)),
        labels_N=torch.tensor([CHOSEN, REJECTED] * len(chosen), dtype=torch.int8),
        reference_logps_N=side_by_side(reference_chosen, reference_rejected),
    )


def losses(objective: Objective, given: Scored, **settings: Any) -> list[float]:
    """The objective's losses per unit, as numbers."""
    configured = objective.settings(**settings)
    values: list[float] = objective.loss(with_running(given, objective, configured), configured).losses_U.tolist()
    return values


def random_examples(
    needs: Needs, count: int, seed: int = 0, spread: float = 1.0, same: bool = False
) -> list[list[Completion]]:
    """Examples of the kind that an objective needs, of 1 to 6 tokens a completion.

    spread: largest log-ratio of a token, in nats. same: whether policy and reference agree.
    """
    generator = torch.Generator().manual_seed(seed)

    def completion(label: int) -> Completion:
        tokens = int(torch.randint(1, 7, (1,), generator=generator))
        policy = -3 * torch.rand(tokens, generator=generator, dtype=torch.float64) - 0.01
        moved = spread * (2 * torch.rand(tokens, generator=generator, dtype=torch.float64) - 1)
        return Completion(label, policy, policy.clone() if same else policy - moved)

    def labels() -> list[int]:
        own = [CHOSEN] if needs.unit == "demonstration" else [CHOSEN, REJECTED]
        if needs.unit == "completion":
            own = [own[int(torch.randint(0, 2, (1,), generator=generator))]]
        return [*own, MISMATCHED] if needs.mismatched else own

    return [[completion(label) for label in labels()] for _ in range(count)]
