"""Log-probabilities of examples under a model that is not being trained."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.errors import NonFiniteError
from tiltlm.model.loading import autocast
from tiltlm.model.scorer import Asked, Scorer
from tiltlm.model.token_values import Columns
from tiltlm.objectives.interface import CHOSEN
from tiltlm.plan.batches import MicroBatch
from tiltlm.plan.packing import plan

EXAMPLES_AT_ONCE = 64
"""Examples planned together, and what an interruption of the reference pass may cost."""


def score(
    scorer: Scorer,
    columns: TokenColumns,
    precision: torch.dtype,
    token_budget: int,
    advance: Callable[[int], None] = lambda done: None,
    temperature: float = 1.0,
    asked: Asked | None = None,
) -> np.ndarray:
    """log pi(token | what comes before it) of every scored token of the columns, float32, in nats.

    Args:
        precision: of autocast; float32 is none.
        token_budget: most columns in one forward pass.
        advance: called with how many more examples are done.
        temperature: logits are divided by it.
        asked: what is wanted besides, in further columns (`token_values.Columns`).

    Returns:
        Shape (scored tokens,) or (scored tokens, columns): those of sequence n stand at scored_starts[n] to
        scored_starts[n + 1].

    Raises:
        NonFiniteError: values are NaN or infinite, naming the examples.
    """
    held = () if asked is None else Columns(asked.squares, asked.divergence).shape
    values = np.empty((int(columns.scored_starts[-1]), *held), dtype=np.float32)
    every = range(len(columns))
    for batch, own in passes(scorer, columns, every, precision, token_budget, temperature, asked=asked):
        values[batch.places] = own.cpu().numpy()
        advance(len(batch.examples))
    return values


@torch.inference_mode()
def passes(
    scorer: Scorer,
    columns: TokenColumns,
    examples: Sequence[int] | np.ndarray,
    precision: torch.dtype,
    token_budget: int,
    temperature: float = 1.0,
    wanted: Callable[[MicroBatch], bool] = lambda batch: True,
    asked: Asked | None = None,
) -> Iterator[tuple[MicroBatch, Tensor]]:
    """Micro-batches of examples with the log-probabilities of their scored tokens, float32, shape (S,); with what is
    asked for besides in further columns.

    The longest come first: if memory runs out it does so at once, and the time left is never underestimated.

    wanted: which of the micro-batches are computed at all.

    Raises:
        NonFiniteError: values are NaN or infinite, naming the examples.
    """
    numbers = np.asarray(examples, dtype=np.int64)
    lengths = columns.bounds[columns.members[numbers + 1]] - columns.bounds[columns.members[numbers]]
    order = numbers[np.argsort(-lengths, kind="stable")]
    for start in range(0, len(order), EXAMPLES_AT_ONCE):
        portion = plan(columns, order[start : start + EXAMPLES_AT_ONCE], token_budget, scorer.layout)
        for batch in filter(wanted, portion.micro_batches):
            with autocast(scorer.device, precision):
                values = scorer(batch.to(scorer.device), temperature, asked)
            table = values if asked is None else values.table()
            _require_finite(table, batch, columns)
            yield batch, table


def _require_finite(table: Tensor, batch: MicroBatch, columns: TokenColumns) -> None:
    if bool(table.isfinite().all()):
        return
    finite_S = table.isfinite().reshape(len(table), -1).all(1)
    broken = batch.score_sequence_S[finite_S.logical_not().cpu()].unique().tolist()
    example_of = np.repeat(batch.examples, np.diff(columns.members)[batch.examples])
    bad = sorted({columns.names[int(example_of[sequence])] for sequence in broken})
    raise NonFiniteError(
        f"the model gives non-finite log-probabilities for {', '.join(bad[:10])}. "
        "The model's weights or its arithmetic (model.precision) are at fault."
    )


def score_sequences(
    scorer: Scorer,
    sequences: Sequence[TokenizedSequence],
    precision: torch.dtype,
    token_budget: int,
    temperature: float = 1.0,
) -> list[np.ndarray]:
    """As `score`, of single sequences: for each its scored tokens' log-probabilities, in the order of the text."""
    columns = TokenColumns.of(
        TokenizedExample(f"sequence {number}", (sequence,), (CHOSEN,)) for number, sequence in enumerate(sequences)
    )
    values = score(scorer, columns, precision, token_budget, temperature=temperature)
    return [values[start:end] for start, end in itertools.pairwise(columns.scored_starts)]


def totals(values: np.ndarray, columns: TokenColumns) -> np.ndarray:
    """Sums of scored tokens' values by sequence, added in float32 in the order of the tokens, shape (N,)."""
    sums = torch.zeros(columns.sequences)
    sequence = torch.from_numpy(np.repeat(np.arange(columns.sequences), columns.scored_tokens))
    summed: np.ndarray = sums.index_add(0, sequence, torch.from_numpy(np.ascontiguousarray(values))).numpy()
    return summed
