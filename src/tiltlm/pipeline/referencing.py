"""The second part: log-probabilities of all examples under the reference, where the objective needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tiltlm.data.preparation import PreparedData
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.dither import add_dither
from tiltlm.model.reference import ReferenceCache, reference_address, reference_values
from tiltlm.model.scorer import Scorer
from tiltlm.model.weights import load_model
from tiltlm.pipeline.prepare import require_vocabulary
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup, reference_source
from tiltlm.storage.cache import REFERENCE, cache_folder
from tiltlm.training.held_out import HeldOut
from tiltlm.training.loop import Referenced
from tiltlm.training.seen import seen_examples


@dataclass(frozen=True, slots=True, eq=False)
class ReferencedData:
    """Examples with the reference's log-probabilities of their scored tokens, or without where none is needed.

    train, held_out: in the arithmetic of training. exact: the held-out ones in float32.
    seen: some of the training examples, in float32 as `exact`.
    """

    train: Referenced
    held_out: Referenced
    exact: HeldOut
    seen: HeldOut


def without_reference(setup: Setup, policy: Scorer, data: PreparedData, reporter: Reporter) -> ReferencedData:
    """For an objective that needs no reference: only the held-out examples are scored, by the policy as it was loaded.

    Log-probabilities that training changes can be told only from what they were.
    """
    seen = _seen(setup, data)
    start, seen_start = _values(setup, policy, [data.eval, seen], torch.float32, reporter)
    if setup.precision is not torch.float32:
        add_dither(policy.model)
    return ReferencedData(
        Referenced(data.train, None),
        Referenced(data.eval, None),
        HeldOut(data.eval, None, start),
        HeldOut(seen, None, seen_start),
    )


def _seen(setup: Setup, data: PreparedData) -> TokenColumns:
    """The training examples that are looked at again at the end."""
    return data.train.take(seen_examples(data.train, setup.config.training, setup.config.run.seed))


def with_reference(setup: Setup, policy: Scorer, data: PreparedData, reporter: Reporter) -> ReferencedData:
    """Joins all examples with their reference log-probabilities, computing those the cache lacks.

    The held-out ones, and some of the others, are scored in float32 too, for the figures of the saved model. For
    training in bfloat16 the weights of the policy, and those of the reference, are dithered from here on.
    """
    reference = policy
    if setup.config.model.reference is not None:
        reference = Scorer(load_model(reference_source(setup), setup.device))
        require_vocabulary(setup, reference, data)
    looked_at = [data.eval, _seen(setup, data)]
    exact, seen = _values(setup, reference, looked_at, torch.float32, reporter)
    start, seen_start = exact, seen
    if reference is not policy:
        start, seen_start = _values(setup, policy, looked_at, torch.float32, reporter)
    if setup.precision is torch.float32:
        held_out = exact
        (train,) = _values(setup, reference, [data.train], setup.precision, reporter)
    else:
        for one in (policy,) if reference is policy else (policy, reference):
            add_dither(one.model)
        train, held_out = _values(setup, reference, [data.train, data.eval], setup.precision, reporter)
    return ReferencedData(
        Referenced(data.train, train),
        Referenced(data.eval, held_out),
        HeldOut(data.eval, exact, start),
        HeldOut(looked_at[1], seen, seen_start),
    )


def _values(
    setup: Setup, scorer: Scorer, parts: Sequence[TokenColumns], precision: torch.dtype, reporter: Reporter
) -> list[np.ndarray]:
    """A model's log-probabilities of all scored tokens of each part, from the cache or computed now, in one pass."""
    name = str(precision).removeprefix("torch.")
    cache = ReferenceCache(cache_folder() / REFERENCE, reference_address(scorer, precision))
    joined = [cache.join(columns) for columns in parts]
    missing = TokenColumns.joined([columns.take(lacking) for columns, (_, lacking) in zip(parts, joined, strict=True)])
    every = sum(map(len, parts))
    found = every - len(missing)
    reporter.say(f"  in {name}, {found} of {every} examples are in the cache ({cache.path.name})")
    if len(missing):
        budget = setup.config.training.micro_batch_tokens
        with reporter.progress(f"reference, {name}", len(missing), "examples") as advance:
            reference_values(scorer, missing, cache, precision, budget, advance)
        joined = [cache.join(columns) for columns in parts]
    cache.close()
    return [values for values, _ in joined]
