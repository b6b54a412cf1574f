"""Sequences with log-probabilities, from a few numbers, as an objective is given them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED, Needs, Objective, Scored


@dataclass(frozen=True)
class Completion:
    """A completion's log-probabilities, token by token, under policy and reference; float64, shape (tokens,).

    log_squares, divergence: what else there is of each token's distributions; None: 0. credit: of each token; None: 0.
    """

    label: int
    policy: Tensor
    reference: Tensor
    log_squares: Tensor | None = None
    divergence: Tensor | None = None
    score: float = math.nan
    credit: Tensor | None = None


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
        sequence_T=sequence_T if needs.of_tokens else None,
        offset_T=torch.cat([torch.arange(int(count)) for count in counts_N]) if needs.of_tokens else None,
        log_squares_T=_joined([one.log_squares for one in sequences], policy_T, counts_N) if needs.squares else None,
        credit_T=_joined([one.credit for one in sequences], policy_T, counts_N) if needs.credit else None,
        reference_kl_T=_joined([one.divergence for one in sequences], policy_T, counts_N) if needs.live else None,
        scores_N=scores_of(examples, policy_T.dtype) if needs.scores != "none" or needs.unit == "list" else None,
        list_UK=lists(examples) if needs.unit == "list" else None,
        tokens_per_unit=tokens_per_unit(examples if batch is None else batch, needs),
    )


def _joined(values: Sequence[Tensor | None], like_T: Tensor, counts_N: Tensor) -> Tensor:
    own = [like_T.new_zeros(int(count)) if one is None else one for one, count in zip(values, counts_N, strict=True)]
    return torch.cat(own).to(like_T.dtype)


def scores_of(examples: Sequence[Example], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([one.score for example in examples for one in example], dtype=dtype)


def lists(examples: Sequence[Example]) -> Tensor:
    """The numbers of each example's sequences, best first, and -1 where there are none."""
    numbered, rows = iter(range(sum(map(len, examples)))), []
    for example in examples:
        own = [(one.score, next(numbered)) for one in example]
        rows.append([number for _, number in sorted(own, key=lambda one: -one[0])])
    most = max(map(len, rows))
    return torch.tensor([[*row, *[-1] * (most - len(row))] for row in rows])


def listed(
    ratios: Sequence[Sequence[float]], scores: Sequence[Sequence[float]], tokens: Sequence[Sequence[int]] | None = None
) -> Scored:
    """Lists from log-ratios to a reference of 0, that is from log-probabilities, with their scores."""
    flat = torch.tensor([ratio for own in ratios for ratio in own], dtype=torch.float64, requires_grad=True)
    counts = tokens or [[1] * len(own) for own in ratios]
    examples = [[Completion(CHOSEN, flat, flat, score=score) for score in own] for own in scores]
    return Scored(
        logps_N=flat,
        tokens_N=torch.tensor([count for own in counts for count in own]),
        labels_N=torch.tensor([int(s == max(own)) for own in scores for s in own], dtype=torch.int8),
        reference_logps_N=torch.zeros_like(flat),
        scores_N=scores_of(examples),
        list_UK=lists(examples),
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

    def completion(label: int, score: float = math.nan) -> Completion:
        tokens = int(torch.randint(1, 7, (1,), generator=generator))
        policy = -3 * torch.rand(tokens, generator=generator, dtype=torch.float64) - 0.01
        moved = spread * (2 * torch.rand(tokens, generator=generator, dtype=torch.float64) - 1)
        log_squares = -torch.rand(tokens, generator=generator, dtype=torch.float64) if needs.squares else None
        divergence = torch.rand(tokens, generator=generator, dtype=torch.float64) if needs.live else None
        credit = torch.rand(tokens, generator=generator, dtype=torch.float64) - 0.5 if needs.credit else None
        if same:
            return Completion(
                label,
                policy,
                policy.clone(),
                log_squares,
                None if divergence is None else 0 * divergence,
                score,
                credit,
            )
        return Completion(label, policy, policy - moved, log_squares, divergence, score, credit)

    def labels() -> list[int]:
        own = [CHOSEN] if needs.unit == "demonstration" else [CHOSEN, REJECTED]
        if needs.unit == "completion":
            own = [own[int(torch.randint(0, 2, (1,), generator=generator))]]
        return [*own, MISMATCHED] if needs.mismatched else own

    def example() -> list[Completion]:
        if needs.unit != "list":
            own = [*labels()]
            scores = [1.5, 0.25] if needs.scores != "none" else [math.nan] * len(own)
            return [completion(label, score) for label, score in zip(own, scores, strict=False)]
        drawn = torch.randint(0, 3, (int(torch.randint(2, 5, (1,), generator=generator)),), generator=generator)
        scores = [3.0, *drawn.double().tolist()]
        return [completion(CHOSEN if score == max(scores) else REJECTED, score) for score in scores]

    return [example() for _ in range(count)]
