"""What a training state is of, as digests that are compared before it is gone on from."""

from __future__ import annotations

import numpy as np
import torch
import xxhash
from torch import Tensor

from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.distributed.shares import whole
from tiltlm.model.scorer import Scorer
from tiltlm.training.step_plans import Referenced

EXAMPLES, HELD_OUT, REFERENCE, WEIGHTS = "training examples", "held-out examples", "reference", "model"
ARITHMETIC, OBJECTIVE = "arithmetic", "objective"


def of_examples(train: TokenColumns, held_out: TokenColumns) -> dict[str, str]:
    """How many examples and tokens there are, with a digest of them, in their order."""
    return {EXAMPLES: _of_columns(train), HELD_OUT: _of_columns(held_out)}


def of_policy(policy: Scorer, arithmetic: str, ranks: Ranks = ALONE) -> dict[str, str]:
    """How many weights a model has before it is trained, with a digest; and the arithmetic of training.

    ranks: over which it may be shared out; the first one knows the digest.
    """
    digest, count = xxhash.xxh3_128(), 0
    for parameter in policy.parameters():
        weights = whole(parameter.detach()).reshape(-1)
        count += len(weights)
        if ranks.first:
            _feed(digest, _as_array(weights.cpu()))
    return {WEIGHTS: f"{count:,} weights, {digest.hexdigest()}", ARITHMETIC: arithmetic}


def _as_array(weights: Tensor) -> np.ndarray:
    """The same numbers; of a type that numpy lacks, their bits."""
    array: np.ndarray = (weights.view(torch.int16) if weights.dtype is torch.bfloat16 else weights).numpy()
    return array


def of_reference(train: Referenced, held_out: Referenced) -> dict[str, str]:
    """A digest of the reference's values, as they are trained with."""
    values = [part.reference for part in (train, held_out) if part.reference is not None]
    return {REFERENCE: f"{sum(map(len, values)):,} log-probabilities, {digest_of(*values)}"}


def digest_of(*arrays: np.ndarray) -> str:
    """XXH3-128 of arrays, their types and shapes included, as hexadecimal digits."""
    digest = xxhash.xxh3_128()
    for array in arrays:
        _feed(digest, array)
    return digest.hexdigest()


def _feed(digest: xxhash.xxh3_128, array: np.ndarray) -> None:
    digest.update(f"{array.dtype} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).data)


def _of_columns(columns: TokenColumns) -> str:
    scores = () if np.isnan(columns.scores).all() else (columns.scores,)
    digest = digest_of(columns.ids, columns.bounds, columns.first_scored, columns.labels, columns.members, *scores)
    return f"{len(columns):,} of {len(columns.ids):,} tokens, {digest}"
