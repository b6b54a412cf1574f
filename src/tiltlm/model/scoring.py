"""Log-probabilities of examples under a model that is not being trained."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.distributed.sharding import is_shared, opened
from tiltlm.errors import NonFiniteError
from tiltlm.model.head import token_logps
from tiltlm.model.loading import autocast
from tiltlm.model.scorer import Asked, Scorer
from tiltlm.model.tempered import MOMENTS
from tiltlm.model.token_values import Columns, TokenValues
from tiltlm.objectives.interface import CHOSEN
from tiltlm.plan.batches import MicroBatch, Plan
from tiltlm.plan.packing import plan
from tiltlm.plan.steps import ahead

EXAMPLES_AT_ONCE = 64
"""Examples planned together, and what an interruption of the reference pass may cost."""


def score(
    scorer: Scorer,
    columns: TokenColumns,
    precision: torch.dtype,
    token_budget: int,
    advance: Callable[[int], None] = lambda done: None,
    temperature: float | np.ndarray = 1.0,
    asked: Asked | None = None,
    ranks: Ranks = ALONE,
) -> np.ndarray:
    """log pi(token | what comes before it) of every scored token of the columns, float32, in nats.

    Args:
        precision: of autocast; float32 is none.
        token_budget: most columns in one forward pass.
        advance: called with how many more examples are done.
        temperature: logits are divided by it; or of each scored token its own.
        asked: what is wanted besides, in further columns (`token_values.Columns`).
        ranks: processes that have the same model and examples, and share out the forward passes.

    Returns:
        Shape (scored tokens,) or (scored tokens, columns): those of sequence n stand at scored_starts[n] to
        scored_starts[n + 1].

    Raises:
        NonFiniteError: values are NaN or infinite, naming the examples.
    """
    tempered = 0 if asked is None else MOMENTS * len(asked.temperatures)
    held = () if asked is None else Columns(asked.squares, asked.divergence, tempered).shape
    values = np.empty((int(columns.scored_starts[-1]), *held), dtype=np.float32)
    every, places = range(len(columns)), list[np.ndarray]()
    for batch, own in passes(scorer, columns, every, precision, token_budget, temperature, asked=asked, ranks=ranks):
        values[batch.places] = own.cpu().numpy()
        places.append(batch.places)
        advance(len(batch.examples) * ranks.count)
    fill_from_others(values, places, ranks)
    return values


class Turns:
    """Who of several ranks computes which of some micro-batches that all of them see: each the next one that comes when
    it has least to do, by columns."""

    def __init__(self, ranks: Ranks) -> None:
        self._rank, self._loads, self._taken = ranks.rank, [0] * ranks.count, [0] * ranks.count

    def mine(self, batch: MicroBatch) -> bool:
        """Whether this rank computes it. All ranks ask of all, in the same order."""
        rank = self._loads.index(min(self._loads))
        self._loads[rank] += batch.tokens_RL.numel()
        self._taken[rank] += 1
        return rank == self._rank

    @property
    def lacking(self) -> int:
        """How many fewer this rank computes than the one with most."""
        return max(self._taken) - self._taken[self._rank]


def fill_from_others(values: np.ndarray, places: Sequence[np.ndarray], ranks: Ranks) -> None:
    """Writes into values what other ranks computed, given the places that this one did."""
    if not ranks.several:
        return
    own = np.concatenate([np.empty(0, dtype=np.int64), *places])
    for theirs, computed in ranks.gathered((own, values[own])):
        values[theirs] = computed


def passes(
    scorer: Scorer,
    columns: TokenColumns,
    examples: Sequence[int] | np.ndarray,
    precision: torch.dtype,
    token_budget: int,
    temperature: float | np.ndarray = 1.0,
    wanted: Callable[[MicroBatch], bool] = lambda batch: True,
    asked: Asked | None = None,
    ranks: Ranks = ALONE,
) -> Iterator[tuple[MicroBatch, Tensor]]:
    """Micro-batches of examples with the log-probabilities of their scored tokens, float32, shape (S,); with what is
    asked for besides in further columns.

    The longest come first: if memory runs out it does so at once, and the time left is never underestimated.

    temperature: that logits are divided by; or of each scored token of the columns its own, shape (scored tokens,).
    wanted: which of the micro-batches are computed at all.
    ranks: processes that share out the micro-batches: each gives its own. They do all the same number of passes where
        the model is shared out too.

    Raises:
        NonFiniteError: values are NaN or infinite, naming the examples.
    """
    # Weights that are shared out cannot be changed later if they were gathered in inference mode.
    without_gradients = torch.no_grad() if is_shared(scorer) else torch.inference_mode()
    given = (scorer, columns, examples, precision, token_budget, temperature, wanted, asked, ranks)
    made: Iterator[tuple[MicroBatch, Tensor]] = without_gradients(_passes)(*given)
    return made


def _passes(
    scorer: Scorer,
    columns: TokenColumns,
    examples: Sequence[int] | np.ndarray,
    precision: torch.dtype,
    token_budget: int,
    temperature: float | np.ndarray,
    wanted: Callable[[MicroBatch], bool],
    asked: Asked | None,
    ranks: Ranks,
) -> Iterator[tuple[MicroBatch, Tensor]]:
    numbers = np.asarray(examples, dtype=np.int64)
    lengths = columns.bounds[columns.members[numbers + 1]] - columns.bounds[columns.members[numbers]]
    order = numbers[np.argsort(-lengths, kind="stable")]
    device, turns = scorer.device, Turns(ranks)
    roots = [scorer] if asked is None or asked.reference is None else [scorer, asked.reference]

    def planned(start: int) -> Plan:
        portion = plan(columns, order[start : start + EXAMPLES_AT_ONCE], token_budget, scorer.layout)
        return portion.pinned() if device.type == "cuda" else portion

    def table_of(batch: MicroBatch) -> Tensor:
        with autocast(device, precision):
            own = temperature[batch.places] if isinstance(temperature, np.ndarray) else temperature
            values = _scored(scorer, batch.to(device), own, asked)
        return values if isinstance(values, Tensor) else values.table()

    # Made by a worker while the device computes those before.
    starts = range(0, len(order), EXAMPLES_AT_ONCE)
    with opened(*roots), contextlib.closing(ahead(planned(start) for start in starts)) as portions:
        for batch in itertools.chain.from_iterable(portion.micro_batches for portion in portions):
            if wanted(batch) and turns.mine(batch):
                table = table_of(batch)
                _require_finite(table, batch, columns)
                yield batch, table
        if is_shared(scorer) and turns.lacking:
            (filler,) = plan(columns, order[-1:], token_budget, scorer.layout).micro_batches
            for _ in range(turns.lacking):
                table_of(filler)


def _scored(
    scorer: Scorer, batch: MicroBatch, temperature: float | np.ndarray, asked: Asked | None
) -> Tensor | TokenValues:
    if not isinstance(temperature, np.ndarray):
        values: Tensor | TokenValues = scorer(batch, temperature, asked)
        return values
    hidden_SD = scorer.hidden_states(batch)
    logps_S = torch.empty(len(hidden_SD), device=hidden_SD.device)
    for one in np.unique(temperature):
        at = torch.from_numpy(np.flatnonzero(temperature == one)).to(hidden_SD.device)
        own = token_logps(hidden_SD[at], batch.score_token_S[at], scorer.head, scorer.transform, float(one))
        logps_S[at] = own.to(logps_S.dtype)
    return logps_S


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
    temperatures: Sequence[float] | None = None,
    ranks: Ranks = ALONE,
) -> list[np.ndarray]:
    """As `score`, of single sequences: for each its scored tokens' log-probabilities, in the order of the text.

    temperatures: that each sequence's logits are divided by; None: 1.
    """
    columns = TokenColumns.of(
        TokenizedExample(f"sequence {number}", (sequence,), (CHOSEN,)) for number, sequence in enumerate(sequences)
    )
    own = 1.0 if temperatures is None else np.repeat(temperatures, columns.scored_tokens)
    values = score(scorer, columns, precision, token_budget, temperature=own, ranks=ranks)
    return [values[start:end] for start, end in itertools.pairwise(columns.scored_starts)]


def totals(values: np.ndarray, columns: TokenColumns) -> np.ndarray:
    """Sums of scored tokens' values by sequence, added in float32 in the order of the tokens, shape (N,)."""
    sums = torch.zeros(columns.sequences)
    sequence = torch.from_numpy(np.repeat(np.arange(columns.sequences), columns.scored_tokens))
    summed: np.ndarray = sums.index_add(0, sequence, torch.from_numpy(np.ascontiguousarray(values))).numpy()
    return summed
