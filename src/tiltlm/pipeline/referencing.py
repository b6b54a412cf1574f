"""The second part: log-probabilities of all examples under the reference, where the objective needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tiltlm.data.preparation import PreparedData
from tiltlm.data.tokens.token_columns import TokenColumns, ranges
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


@dataclass(frozen=True, slots=True, eq=False)
class ReferencedData:
    """Examples with the reference's log-probabilities of their scored tokens, or without where none is needed.

    train, held_out: in the arithmetic of training. exact: the held-out ones in float32.
    """

    train: Referenced
    held_out: Referenced
    exact: HeldOut


def without_reference(setup: Setup, policy: Scorer, data: PreparedData, reporter: Reporter) -> ReferencedData:
    """For an objective that needs no reference: only the held-out examples are scored, by the policy as it was loaded.

    Log-probabilities that training changes can be told only from what they were.
    """
    (start,) = _values(setup, policy, [data.eval], torch.float32, reporter)
    if setup.precision is not torch.float32:
        add_dither(policy.model)
    return ReferencedData(Referenced(data.train, None), Referenced(data.eval, None), HeldOut(data.eval, None, start))


def with_reference(setup: Setup, policy: Scorer, data: PreparedData, reporter: Reporter) -> ReferencedData:
    """Joins all examples with their reference log-probabilities, computing those the cache lacks.

    The held-out ones are scored in float32 too, for the figures of the saved model. For training in bfloat16 the
    weights of the policy, and those of the reference, are dithered from here on.
    """
    reference = policy
    if setup.config.model.reference is not None:
        reference = Scorer(load_model(reference_source(setup), setup.device))
        require_vocabulary(setup, reference, data)
    (exact,) = _values(setup, reference, [data.eval], torch.float32, reporter)
    start = exact
    if reference is not policy:
        (start,) = _values(setup, policy, [data.eval], torch.float32, reporter)
    if setup.precision is torch.float32:
        held_out = exact
        (train,) = _values(setup, reference, [data.train], setup.precision, reporter)
    else:
        for one in (policy,) if reference is policy else (policy, reference):
            add_dither(one.model)
        train, held_out = _values(setup, reference, [data.train, data.eval], setup.precision, reporter)
    return ReferencedData(
        Referenced(data.train, train), Referenced(data.eval, held_out), HeldOut(data.eval, exact, start)
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
            computed = reference_values(scorer, missing, cache, precision, budget, advance)
        _fill(parts, joined, computed)
        # As the cache has them: of equal sequences, computed in different places, the values of one. What it lost
        # since, as by `tiltlm cache --clear`, is as it was.
        kept = [cache.join(columns)[0] for columns in parts]
        joined = [(np.where(np.isnan(new), own, new), none) for new, (own, none) in zip(kept, joined, strict=True)]
    cache.close()
    return [values for values, _ in joined]


def _fill(parts: Sequence[TokenColumns], joined: Sequence[tuple[np.ndarray, np.ndarray]], computed: np.ndarray) -> None:
    """Writes what was computed of all parts, one after another, into the values of each, which lack these examples."""
    start = 0
    for columns, (values, lacking) in zip(parts, joined, strict=True):
        starts = columns.scored_starts[columns.members[lacking]]
        places = ranges(starts, columns.scored_starts[columns.members[lacking + 1]] - starts)
        values[places] = computed[start : start + len(places)]
        start += len(places)
