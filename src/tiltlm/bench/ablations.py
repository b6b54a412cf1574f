"""Training with one of its ideas changed and all else as it is, for a benchmark; each change gives the same losses."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tiltlm.bench.own_training import AS_IT_IS, Composition
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.compiled_layers import compile_layers
from tiltlm.model.head import token_logps
from tiltlm.model.scorer import Asked, Scorer
from tiltlm.model.token_values import TokenValues
from tiltlm.plan.batches import MicroBatch, Plan
from tiltlm.plan.row_layout import DENSE
from tiltlm.training.step_plans import Referenced


def without_sharing(pairs: Referenced, examples: np.ndarray, budget: int, scorer: Scorer) -> Plan:
    """A plan in which no sequence shares a token: each gets ids of its own, and its own ones back in the rows."""
    rows = scorer.head.out_features
    some = pairs.columns.take(examples)
    own = np.repeat(np.arange(some.sequences), np.diff(some.bounds)).astype(np.int32)
    apart = dataclasses.replace(some, ids=some.ids + own * rows)
    values = _of(pairs, examples)
    made = Referenced(apart, values).plan(range(len(apart)), budget, scorer.layout)
    batches = tuple(
        dataclasses.replace(
            batch,
            tokens_RL=batch.tokens_RL % rows,
            score_token_S=batch.score_token_S % rows,
            examples=examples[batch.examples],
        )
        for batch in made.micro_batches
    )
    return dataclasses.replace(made, micro_batches=batches)


def without_packing(pairs: Referenced, examples: np.ndarray, budget: int, scorer: Scorer) -> Plan:
    """A plan in which each pair is a pass of its own: one tree in one row."""
    return pairs.plan(examples, 1, scorer.layout)


def under_a_dense_mask(pairs: Referenced, examples: np.ndarray, budget: int, scorer: Scorer) -> Plan:
    """A plan without blocks, in rows that suit a dense mask: what a model's own attention then takes."""
    return pairs.plan(examples, budget, DENSE)


def _of(pairs: Referenced, examples: np.ndarray) -> np.ndarray | None:
    """The reference's values of some examples, in the order of `take`."""
    if pairs.reference is None:
        return None
    columns: TokenColumns = pairs.columns
    starts, members = columns.scored_starts, columns.members
    return np.concatenate([pairs.reference[starts[members[e]] : starts[members[e + 1]]] for e in examples])


class EveryToken(Scorer):
    """A scorer whose output layer is run on every column, padding and prompts included; what is asked for is kept."""

    def forward(self, batch: MicroBatch, temperature: float = 1.0, asked: Asked | None = None) -> Tensor | TokenValues:
        columns = torch.arange(batch.tokens_RL.numel(), device=self.device)
        beside = columns[~torch.isin(columns, batch.score_at_S)]
        every = dataclasses.replace(batch, score_at_S=torch.cat([batch.score_at_S, beside]))
        tokens = torch.cat([batch.score_token_S, torch.zeros_like(beside)])
        logps = token_logps(self.hidden_states(every), tokens, self.head, self.transform, temperature)
        return logps[: len(batch.score_token_S)]


class WholeLogits(Scorer):
    """A scorer that makes the logits of all scored tokens at once, and keeps them for the backward pass."""

    def forward(self, batch: MicroBatch, temperature: float = 1.0, asked: Asked | None = None) -> Tensor | TokenValues:
        logits = self.head(self.hidden_states(batch)).float() * (self.transform.scale / temperature)
        if (cap := self.transform.softcap) is not None:
            logits = torch.tanh(logits / cap) * cap
        return F.log_softmax(logits, -1).gather(-1, batch.score_token_S[:, None]).squeeze(-1)


def compiled(loaded: Scorer) -> Scorer:
    """The scorer with each of its model's layers compiled, for any shape.

    Raises:
        ConfigError: the model's layers are not known.
    """
    compile_layers(loaded.model)
    return loaded


COMPOSITIONS = {
    "ours": AS_IT_IS,
    "ours-live": AS_IT_IS,
    "no-sharing": Composition(planned=without_sharing),
    "no-packing": Composition(planned=without_packing),
    "dense-mask": Composition(planned=under_a_dense_mask),
    "no-scored-list": Composition(scorer=lambda loaded: EveryToken(loaded.model)),
    "no-chunked-head": Composition(scorer=lambda loaded: WholeLogits(loaded.model)),
    "float32": AS_IT_IS,
    "compiled": Composition(scorer=compiled),
}
"""How each of our own systems is put together."""
