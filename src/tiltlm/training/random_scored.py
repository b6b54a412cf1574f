"""Scored sequences drawn at random, of the kind that an objective needs: what its code can be tried on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED, Needs, Scored

MOST_TOKENS = 4
_LABELS = {
    "pair": (CHOSEN, REJECTED),
    "completion": (CHOSEN,),
    "list": (CHOSEN, REJECTED, REJECTED),
    "demonstration": (CHOSEN,),
}


@dataclass(frozen=True, slots=True, eq=False)
class RandomSequence:
    """A completion's values token by token, float64, in nats or in units of scores, shape (tokens,); and its label and
    score."""

    label: int
    score: float
    policy: Tensor
    reference: Tensor
    log_squares: Tensor
    divergence: Tensor
    credit: Tensor


RandomExample = tuple[RandomSequence, ...]


def random_examples(needs: Needs, count: int, seed: int = 0) -> list[RandomExample]:
    """Examples of 1 to `MOST_TOKENS` tokens a completion, with log-ratios of a token within a nat either way."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(tokens: int) -> Tensor:
        return torch.rand(tokens, generator=generator, dtype=torch.float64)

    def sequence(label: int, place: int) -> RandomSequence:
        tokens = 1 + int(torch.randint(MOST_TOKENS, (1,), generator=generator))
        policy = -3 * drawn(tokens) - 0.01
        score = 3.0 - place + float(drawn(1)) / 2
        reference, log_squares, divergence = policy + 1 - 2 * drawn(tokens), -drawn(tokens), drawn(tokens)
        return RandomSequence(label, score, policy, reference, log_squares, divergence, drawn(tokens) - 0.5)

    examples = []
    for number in range(count):
        labels = _LABELS[needs.unit]
        if needs.unit == "completion" and number % 2:
            labels = (REJECTED,)
        others = (MISMATCHED,) * len(labels) if needs.mismatched else ()
        examples.append(tuple(sequence(label, place) for place, label in enumerate((*labels, *others))))
    return examples


def assembled(needs: Needs, examples: Sequence[RandomExample]) -> Scored:
    """What an objective of these needs is given of the examples, in their order, and nothing else."""
    sequences = [sequence for example in examples for sequence in example]
    counts_N = torch.tensor([len(sequence.policy) for sequence in sequences])
    sequence_T = torch.arange(len(sequences)).repeat_interleave(counts_N)
    labels_N = torch.tensor([sequence.label for sequence in sequences], dtype=torch.int8)
    labelled = labels_N != MISMATCHED
    units = int(labelled.sum()) if needs.unit == "completion" else len(examples)

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(sequence, name) for sequence in sequences])

    bare = Scored(
        logps_N=torch.empty(0),
        tokens_N=counts_N,
        labels_N=labels_N,
        token_logps_T=joined("policy"),
        reference_token_logps_T=joined("reference") if needs.reference else None,
        sequence_T=sequence_T,
        offset_T=torch.cat([torch.arange(count) for count in counts_N.tolist()]),
        log_squares_T=joined("log_squares") if needs.squares else None,
        credit_T=joined("credit") if needs.credit else None,
        reference_kl_T=joined("divergence") if needs.live else None,
        list_UK=_best_first(examples) if needs.unit == "list" else None,
        scores_N=torch.tensor([one.score for one in sequences]).double() if needs.scores != "none" else None,
        tokens_per_unit=float(counts_N[labelled].sum()) / units,
    )
    return summed(needs, bare)


def _best_first(examples: Sequence[RandomExample]) -> Tensor:
    """The numbers of each example's sequences, which are drawn best first."""
    bounds = [0, *itertools.accumulate(len(example) for example in examples)]
    longest = max(len(example) for example in examples)
    rows = [[*range(start, end), *[-1] * (longest - end + start)] for start, end in itertools.pairwise(bounds)]
    return torch.tensor(rows)


def summed(needs: Needs, scored: Scored) -> Scored:
    """The same with sums that are those of its tokens, and without the tokens' values where they are not needed."""
    assert scored.token_logps_T is not None
    references = scored.reference_token_logps_T
    return replace(
        scored,
        logps_N=scored.sums(scored.token_logps_T),
        reference_logps_N=None if references is None else scored.sums(references),
        token_logps_T=scored.token_logps_T if needs.tokens else None,
        reference_token_logps_T=references if needs.tokens else None,
        sequence_T=scored.sequence_T if needs.of_tokens else None,
        offset_T=scored.offset_T if needs.of_tokens else None,
    )


def tokens_of(needs: Needs, examples: Sequence[RandomExample]) -> list[Tensor]:
    """What a loss has a gradient by, of sequences that are trained on: log-probabilities, then divergences."""
    trained = [sequence for example in examples for sequence in example if sequence.label != MISMATCHED]
    divergences = [sequence.divergence for sequence in trained] if needs.live else []
    return [*(sequence.policy for sequence in trained), *divergences]


def with_tokens(examples: Sequence[RandomExample], values: Sequence[Tensor]) -> list[RandomExample]:
    """The examples with other values in the places that `tokens_of` has them in."""
    trained = sum(sequence.label != MISMATCHED for example in examples for sequence in example)
    policies, divergences = iter(values[:trained]), iter(values[trained:])

    def moved(sequence: RandomSequence) -> RandomSequence:
        if sequence.label == MISMATCHED:
            return sequence
        return replace(sequence, policy=next(policies), divergence=next(divergences, sequence.divergence))

    return [tuple(moved(sequence) for sequence in example) for example in examples]
