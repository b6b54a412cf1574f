"""What a step computes, laid out: micro-batches of packed rows, with the list of what is scored.

Shape suffixes: R rows, L row length, S scored tokens, N sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tiltlm.plan.blocks import Blocks
from tiltlm.plan.runs import Runs


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """Sequences of whole examples laid out as trees in rows: what one forward pass takes.

    tokens_RL: int64 token ids; padding holds token 0.
    positions_RL: int64 position of each token within its own sequence.
    subtree_end_RL: int64 column where the subtree headed by each token ends (exclusive): column i
        sees column j exactly when j <= i < subtree_end[j]. A padding column sees only itself.
    score_at_S: int64 index into the flattened (R*L) columns whose hidden state predicts ...
    score_token_S: int64 ... this token ...
    score_sequence_S: int64 ... of this sequence; the sequences of an example stand together.
    offset_S: int64 its place in the sequence's completion.
    reference_S: float32 log-probability of the token under the reference, in nats; None where there is none.
    credit_S: float32, what the token did for its answer's score; None where it was not asked for.
    labels_N: int8 label of each sequence (objectives/interface.py).
    scores_N: float32 score of each sequence, higher is better; NaN where there is none.
    list_UK: int64, of each example its scored sequences, best first; see `Scored.list_UK`.
    tokens_N: int64 how many tokens of each sequence are scored.
    examples: numbers of the examples in the columns they were taken from.
    places: where each scored token stands in the list of all scored tokens of those columns, shape (S,).
    laid_out: tokens in the rows, without padding.
    trees: False where every row holds one sequence alone, as models need whose layers carry a state.
    filler: whether what comes of it counts for nothing (plan/dealing.py).
    blocks, runs: which columns attend together, where attention goes by one of these.
    """

    tokens_RL: Tensor
    positions_RL: Tensor
    subtree_end_RL: Tensor
    score_at_S: Tensor
    score_token_S: Tensor
    score_sequence_S: Tensor
    offset_S: Tensor
    reference_S: Tensor | None
    labels_N: Tensor
    scores_N: Tensor
    list_UK: Tensor
    tokens_N: Tensor
    examples: np.ndarray
    places: np.ndarray
    laid_out: int
    trees: bool
    credit_S: Tensor | None = None
    blocks: Blocks | None = None
    runs: Runs | None = None
    filler: bool = False

    @property
    def sequences(self) -> int:
        """How many sequences there are, N."""
        return len(self.labels_N)

    def to(self, device: torch.device) -> MicroBatch:
        """The same with its tensors on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> MicroBatch:
        """The same in page-locked memory, from which a GPU copies while it computes."""
        return self._each(lambda tensor: tensor.pin_memory())

    def as_filler(self) -> MicroBatch:
        """The same as a forward pass that counts for nothing."""
        return replace(self, filler=True, laid_out=0)

    def _each(self, change: Callable[[Tensor], Tensor]) -> MicroBatch:
        held: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {name: change(value) for name, value in held.items() if isinstance(value, Tensor)}
        runs = None if self.runs is None else self.runs.each(change)
        return MicroBatch(**(held | changed | {"runs": runs}))


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What one optimizer step, or one evaluation, computes.

    examples: how many there are in all micro-batches, and `completions` how many of their sequences are labelled:
        the numbers that losses are divided by, known before any of them is computed. tokens: scored tokens of those.
    busy: of several ranks that work in step, what they have to do on average, as a share of what the one has that has
        most; then the micro-batches are those of one rank, and the numbers those of all.
    """

    micro_batches: tuple[MicroBatch, ...]
    examples: int
    completions: int
    tokens: int
    busy: float = 1.0

    @property
    def counted(self) -> tuple[MicroBatch, ...]:
        """The micro-batches that count."""
        return tuple(batch for batch in self.micro_batches if not batch.filler)

    @property
    def numbers(self) -> np.ndarray:
        """The numbers of the examples of the micro-batches that count, in their order."""
        return np.concatenate([np.empty(0, dtype=np.int64), *(batch.examples for batch in self.counted)])

    @property
    def laid_out(self) -> int:
        """Tokens in all rows, shared ones once, without padding."""
        return sum(batch.laid_out for batch in self.micro_batches)

    def pinned(self) -> Plan:
        """The same in page-locked memory."""
        return replace(self, micro_batches=tuple(batch.pinned() for batch in self.micro_batches))
