"""Tokenized examples in columns: token ids of all of them in one array, and examples as views into it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tiltlm.data.tokens.names import Names
from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED
from tiltlm.storage.scratch import scratch_array

_TOKENS_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedSequence:
    """Prompt and completion as one token sequence.

    ids: int32 token ids, shape (tokens,).
    first_scored: index of the first token that belongs to the completion; at least 1.
    tokens_cut: how many tokens the completion lost at its end.
    ended: False where the answer was cut in the middle before it came here, so that no end of it follows.
    """

    ids: np.ndarray
    first_scored: int
    tokens_cut: int = 0
    ended: bool = True

    @property
    def scored_tokens(self) -> int:
        return len(self.ids) - self.first_scored


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedExample:
    """One prompt with its scored sequences, as a view. A pair is its chosen sequence, then its rejected one.

    labels: of each sequence, CHOSEN, REJECTED or MISMATCHED (objectives/interface.py).
    prompt_tokens_cut: how many tokens the prompt lost.
    scores: of each sequence, higher is better; None where there are none.
    """

    id: str
    sequences: tuple[TokenizedSequence, ...]
    labels: tuple[int, ...]
    prompt_tokens_cut: int = 0
    scores: tuple[float, ...] | None = None

    @staticmethod
    def pair(
        id: str, chosen: TokenizedSequence, rejected: TokenizedSequence, prompt_tokens_cut: int = 0
    ) -> TokenizedExample:
        """A preferred and a less preferred completion of one prompt."""
        return TokenizedExample(id, (chosen, rejected), (CHOSEN, REJECTED), prompt_tokens_cut)

    @property
    def chosen(self) -> TokenizedSequence:
        """The first chosen sequence."""
        return self.sequences[self.labels.index(CHOSEN)]

    @property
    def rejected(self) -> TokenizedSequence:
        """The first rejected sequence."""
        return self.sequences[self.labels.index(REJECTED)]


@dataclass(frozen=True, slots=True, eq=False)
class TokenColumns:
    """Examples in columns, which may be mapped from a file. E examples, N sequences, tokens of all of them.

    ids: int32 token ids, shape (tokens,). bounds: int64, shape (N + 1,): sequence n is ids[bounds[n]:bounds[n + 1]].
    first_scored: int32, shape (N,), index within its sequence of the first token that belongs to the completion.
    tokens_cut: int32, shape (N,), how many tokens the completion lost at its end.
    ended: int8, shape (N,), 0 where the answer was cut in the middle before it came here, else 1.
    labels: int8, shape (N,). scores: float32, shape (N,), higher is better; NaN where there is none.
    members: int64, shape (E + 1,): example e has the sequences members[e] to members[e + 1].
    prompt_tokens_cut: int32, shape (E,).
    names: the examples' ids, E of them.
    credit: float32, of every scored token what it did for its answer's score (`training.credit`); None where it was not
        asked for.
    scored_starts: int64, shape (N + 1,): where each sequence begins in the list of all scored tokens.
    """

    ids: np.ndarray
    bounds: np.ndarray
    first_scored: np.ndarray
    tokens_cut: np.ndarray
    ended: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    members: np.ndarray
    prompt_tokens_cut: np.ndarray
    names: Sequence[str]
    credit: np.ndarray | None = None
    scored_starts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scored_starts", bounds_of(self.scored_tokens))

    @staticmethod
    def of(examples: Iterable[TokenizedExample]) -> TokenColumns:
        """The columns of some examples."""
        given = list(examples)
        sequences = [sequence for example in given for sequence in example.sequences]
        return TokenColumns(
            ids=np.concatenate([s.ids for s in sequences]) if sequences else np.empty(0, dtype=np.int32),
            bounds=bounds_of([len(s.ids) for s in sequences]),
            first_scored=np.array([s.first_scored for s in sequences], dtype=np.int32),
            tokens_cut=np.array([s.tokens_cut for s in sequences], dtype=np.int32),
            ended=np.array([s.ended for s in sequences], dtype=np.int8),
            labels=np.array([label for example in given for label in example.labels], dtype=np.int8),
            scores=np.array([score for example in given for score in scores_of(example)], dtype=np.float32),
            members=bounds_of([len(example.sequences) for example in given]),
            prompt_tokens_cut=np.array([example.prompt_tokens_cut for example in given], dtype=np.int32),
            names=[example.id for example in given],
        )

    @staticmethod
    def joined(parts: Sequence[TokenColumns]) -> TokenColumns:
        """The examples of several columns, one after another; copies their tokens."""
        ids = scratch_array(sum(len(part.ids) for part in parts), np.int32)
        np.concatenate([part.ids for part in parts], out=ids)
        return TokenColumns(
            ids=ids,
            bounds=bounds_of(np.concatenate([np.diff(part.bounds) for part in parts])),
            first_scored=np.concatenate([part.first_scored for part in parts]),
            tokens_cut=np.concatenate([part.tokens_cut for part in parts]),
            ended=np.concatenate([part.ended for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            scores=np.concatenate([part.scores for part in parts]),
            members=bounds_of(np.concatenate([np.diff(part.members) for part in parts])),
            prompt_tokens_cut=np.concatenate([part.prompt_tokens_cut for part in parts]),
            names=Names.joined([part.names for part in parts]),
            credit=_joined([part.credit for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.members) - 1

    def __getitem__(self, number: int) -> TokenizedExample:
        if not 0 <= number < len(self):
            raise IndexError(number)
        own = range(int(self.members[number]), int(self.members[number + 1]))
        scores = tuple(self.scores[own.start : own.stop].tolist())
        return TokenizedExample(
            self.names[number],
            tuple(self.sequence(n) for n in own),
            tuple(self.labels[own.start : own.stop].tolist()),
            int(self.prompt_tokens_cut[number]),
            None if any(map(math.isnan, scores)) else scores,
        )

    def __iter__(self) -> Iterator[TokenizedExample]:
        return (self[number] for number in range(len(self)))

    @property
    def sequences(self) -> int:
        """How many sequences all examples have."""
        return len(self.bounds) - 1

    @property
    def scored_tokens(self) -> np.ndarray:
        """How many tokens of each sequence are scored, shape (N,)."""
        counts: np.ndarray = np.diff(self.bounds) - self.first_scored
        return counts

    def scored_tokens_of(self, sequences: np.ndarray) -> np.ndarray:
        """The same of some sequences, looking at no other."""
        counts: np.ndarray = self.scored_starts[sequences + 1] - self.scored_starts[sequences]
        return counts

    @property
    def all_pairs(self) -> bool:
        """Whether every example is a chosen sequence, then a rejected one; mismatched ones aside."""
        counts = np.diff(self.members)
        own = self.labels[self.labels != MISMATCHED]
        alike = len(own) == 2 * len(self) and len(np.unique(counts)) < 2
        return alike and bool((own.reshape(-1, 2) == (CHOSEN, REJECTED)).all())

    def sequence(self, number: int) -> TokenizedSequence:
        """One sequence, as a view."""
        ids = self.ids[self.bounds[number] : self.bounds[number + 1]]
        return TokenizedSequence(
            ids, int(self.first_scored[number]), int(self.tokens_cut[number]), bool(self.ended[number])
        )

    def take(self, numbers: Sequence[int] | np.ndarray) -> TokenColumns:
        """The columns of some of the examples, in the given order."""
        taken = np.asarray(numbers, dtype=np.int64)
        counts = self.members[taken + 1] - self.members[taken]
        sequences = ranges(self.members[taken], counts)
        lengths = self.bounds[sequences + 1] - self.bounds[sequences]
        return TokenColumns(
            ids=gathered(self.ids, self.bounds[sequences], lengths),
            bounds=bounds_of(lengths),
            first_scored=self.first_scored[sequences],
            tokens_cut=self.tokens_cut[sequences],
            ended=self.ended[sequences],
            labels=self.labels[sequences],
            scores=self.scores[sequences],
            members=bounds_of(counts),
            prompt_tokens_cut=self.prompt_tokens_cut[taken],
            names=self.names.take(taken) if isinstance(self.names, Names) else [self.names[n] for n in taken.tolist()],
            credit=None
            if self.credit is None
            else gathered(self.credit, self.scored_starts[sequences], self.scored_tokens_of(sequences)),
        )


def scores_of(example: TokenizedExample) -> tuple[float, ...]:
    """The scores of an example's sequences; NaN where there is none."""
    return example.scores or (math.nan,) * len(example.labels)


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Of all examples, where it is there of all of them."""
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there and len(there) == len(parts) else None


def bounds_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where parts of these lengths begin when they stand one after another, and where the last one ends; int64."""
    bounds = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, dtype=np.int64, out=bounds[1:])
    return bounds


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers of several ranges, one after another; int64."""
    ends = np.cumsum(lengths)
    numbers: np.ndarray = np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)
    return numbers


def gathered(ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Parts of an array, one after another."""
    bounds = bounds_of(lengths)
    gathered = scratch_array(int(bounds[-1]), ids.dtype)
    # The places of all tokens at once would take twice the memory of the tokens themselves.
    for first, last in portions(bounds):
        gathered[bounds[first] : bounds[last]] = ids[ranges(starts[first:last], lengths[first:last])]
    return gathered


def portions(bounds: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cuts parts with these bounds into runs [first, last) of some million tokens, a long part being a run alone."""
    first, parts = 0, len(bounds) - 1
    while first < parts:
        last = int(np.searchsorted(bounds, bounds[first] + _TOKENS_AT_ONCE, side="right")) - 1
        last = min(max(last, first + 1), parts)
        yield first, last
        first = last
