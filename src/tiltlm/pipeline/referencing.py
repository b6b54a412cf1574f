"""The second part: log-probabilities of all examples under the reference, where the objective needs them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from tiltlm.checkpoints.identity import digest_of
from tiltlm.data.preparation import PreparedData
from tiltlm.data.tokens.token_columns import TokenColumns, ranges
from tiltlm.distributed.sharding import leave_open
from tiltlm.errors import ModelError
from tiltlm.model.dither import add_dither
from tiltlm.model.reference import ReferenceCache, fill_cache, reference_address
from tiltlm.model.scorer import Scorer
from tiltlm.pipeline.keeping import exact_values
from tiltlm.pipeline.models import as_trained_at, reference_model
from tiltlm.pipeline.prepare import require_vocabulary
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup
from tiltlm.runs.folder import RunFolder
from tiltlm.storage.cache import REFERENCE, cache_folder
from tiltlm.storage.whole_files import written_whole
from tiltlm.training.held_out import HeldOut
from tiltlm.training.moving_reference import require_alike
from tiltlm.training.seen import seen_examples
from tiltlm.training.step_plans import Referenced


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


def without_reference(
    setup: Setup, policy: Scorer, data: PreparedData, folder: RunFolder, reporter: Reporter
) -> ReferencedData:
    """For an objective that needs no reference: only the held-out examples are scored, by the policy as it was loaded.

    Log-probabilities that training changes can be told only from what they were.
    """
    seen, float32 = _seen(setup, data), _Pass(setup, policy, torch.float32, folder, reporter)
    (start,), (seen_start,) = float32.values("held-out", [data.eval]), float32.values("seen", [seen])
    exact = _with_distributions(setup, policy, None, HeldOut(data.eval, None, start), reporter)
    seen_exact = _with_distributions(setup, policy, None, HeldOut(seen, None, seen_start), reporter)
    if setup.precision is not torch.float32:
        add_dither(policy.model)
    return ReferencedData(
        Referenced(data.train, None),
        Referenced(data.eval, None),
        exact,
        seen_exact,
    )


def with_reference(
    setup: Setup, policy: Scorer, data: PreparedData, folder: RunFolder, reporter: Reporter
) -> ReferencedData:
    """Joins all examples with their reference log-probabilities, computing those the cache lacks.

    The held-out ones, and some of the others, are scored in float32 too, for the figures of the saved model. For
    training in bfloat16 the weights of the policy, and those of the reference, are dithered from here on. A reference
    at work says itself what it makes of the training examples, so that theirs are not computed.
    """
    reference, ahead = policy, not setup.objective.objective.live_reference
    train: np.ndarray | None = None
    if setup.config.model.reference is not None:
        reference = as_trained_at(setup, reference_model(setup))
        require_vocabulary(setup, reference, data)
    seen, float32 = _seen(setup, data), _Pass(setup, reference, torch.float32, folder, reporter)
    (exact,) = float32.values("held-out", [data.eval])
    if setup.precision is torch.float32:
        train, held_out = float32.values("train", [data.train])[0] if ahead else None, exact
    (seen_exact,) = float32.values("seen", [seen])
    start, seen_start = exact, seen_exact
    if reference is not policy:
        own = _Pass(setup, policy, torch.float32, folder, reporter)
        (start,), (seen_start,) = own.values("held-out-policy", [data.eval]), own.values("seen-policy", [seen])
    in_float32, seen_in_float32 = (
        _with_distributions(setup, policy, reference, known, reporter)
        for known in (HeldOut(data.eval, exact, start), HeldOut(seen, seen_exact, seen_start))
    )
    if setup.precision is not torch.float32:
        for one in (policy,) if reference is policy else (policy, reference):
            add_dither(one.model)
        own = _Pass(setup, reference, setup.precision, folder, reporter)
        *values, held_out = own.values("all", [data.train, data.eval] if ahead else [data.eval])
        train = values[0] if values else None
    return ReferencedData(
        Referenced(data.train, train),
        Referenced(data.eval, held_out),
        in_float32,
        seen_in_float32,
    )


def reference_at_work(setup: Setup, policy: Scorer) -> Scorer | None:
    """The reference as a model beside the policy before its first step, where the objective wants one.

    Raises:
        ModelError: it is another model, of which the objective's use makes no sense.
    """
    objective = setup.objective.objective
    if not objective.live_reference:
        return None
    if objective.moves is not None and policy.adapter is not None:
        raise ModelError(
            f"`{objective.name}` moves its reference towards the policy, weight by weight, and averaging the factors "
            "of adapters is not averaging weights: merge the adapter first (tiltlm merge), or take another objective."
        )
    if setup.config.model.reference is None and not setup.ranks.several:
        reference = copy.deepcopy(policy)
    else:
        reference = as_trained_at(setup, reference_model(setup))
        if setup.precision is not torch.float32:
            add_dither(reference.model)
    if objective.moves is not None:
        require_alike(reference, policy)
    if objective.needs.live and reference.head.out_features != policy.head.out_features:
        raise ModelError(
            f"`{objective.name}` compares whole distributions, but the reference's output layer has "
            f"{reference.head.out_features} rows and the model's {policy.head.out_features}: name a reference "
            "(model.reference) of the same vocabulary."
        )
    leave_open(reference)  # parts of it are called by themselves, within the policy's forward and backward passes
    # Not frozen: it is asked without gradients only, and what is dithered of it is known by what could be trained.
    return reference


def _with_distributions(
    setup: Setup, policy: Scorer, reference: Scorer | None, known: HeldOut, reporter: Reporter
) -> HeldOut:
    """The examples with all that the objective needs of their tokens before training; no cache has more than
    log-probabilities."""
    if not setup.objective.columns.shape:
        return known
    words = "distributions before training"
    return dataclasses.replace(known, start=exact_values(setup, words, policy, known, reporter, reference))


def _seen(setup: Setup, data: PreparedData) -> TokenColumns:
    """The training examples that are looked at again at the end."""
    return data.train.take(seen_examples(data.train, setup.config.training, setup.config.run.seed))


class _Pass:
    """A model's log-probabilities from the cache or computed now, in one arithmetic."""

    def __init__(
        self, setup: Setup, scorer: Scorer, precision: torch.dtype, folder: RunFolder, reporter: Reporter
    ) -> None:
        self._scorer, self._precision, self._folder, self._reporter = scorer, precision, folder, reporter
        self._budget, self._ranks = setup.config.training.token_budget, setup.ranks
        self._address = reference_address(scorer, precision, setup.ranks)

    def values(self, name: str, parts: Sequence[TokenColumns]) -> list[np.ndarray]:
        """Those of all scored tokens of each part, computed in one pass where the cache lacks some."""
        cache = ReferenceCache(cache_folder() / REFERENCE, self._address)
        ranks = self._ranks
        joined = ranks.from_first(lambda: [cache.join(columns) for columns in parts])
        lacking = [missing for _, missing in joined]
        missing, every, arithmetic = sum(map(len, lacking)), sum(map(len, parts)), str(self._precision)[6:]
        self._reporter.say(
            f"  in {arithmetic}, {every - missing} of {every} examples are in the cache ({cache.path.name})"
        )
        if missing:
            plan = self._folder.path / f".reference-{name}-{arithmetic}.safetensors"
            planned = ranks.from_first(lambda: self._planned(plan, parts, lacking))
            columns = TokenColumns.joined([part.take(own) for part, own in zip(parts, planned, strict=True)])
            with self._reporter.progress(f"reference, {arithmetic}", missing, "examples") as advance:
                computed = fill_cache(self._scorer, columns, cache, self._precision, self._budget, advance, ranks)
            plan.unlink(missing_ok=True)
            for part, own, (values, _) in zip(parts, planned, joined, strict=True):
                computed = computed[_fill(values, part, own, computed) :]
            # As the cache has them: of equal sequences, computed in different places, the values of one. What it lost
            # since, as by `tiltlm cache --clear`, is as it was.
            kept = ranks.from_first(lambda: [cache.join(part)[0] for part in parts])
            joined = [(np.where(np.isnan(new), own, new), none) for new, (own, none) in zip(kept, joined, strict=True)]
        cache.close()
        return [values for values, _ in joined]

    def _planned(self, plan: Path, parts: Sequence[TokenColumns], lacking: list[np.ndarray]) -> list[np.ndarray]:
        """Which examples are computed: those that were missing when the run came here first.

        What is computed together decides the last bits of the values. So a run that goes on plans as it did before it
        was killed, and what is there already is left out of the plan, not planned around.

        plan: the file in which it is kept which they are, until all are computed.
        """
        of = digest_of(np.frombuffer(self._address.encode(), dtype=np.uint8), *[part.ids for part in parts])
        if plan.is_file():
            with safe_open(plan, "np") as kept:
                same = kept.metadata() == {"of": of}
                before = [kept.get_tensor(str(number)) for number in range(len(parts))] if same else []
            if same and all(np.isin(own, known).all() for own, known in zip(lacking, before, strict=True)):
                return before
        with written_whole(plan) as unfinished:
            save_file({str(number): own for number, own in enumerate(lacking)}, unfinished, {"of": of})
        return lacking


def _fill(values: np.ndarray, columns: TokenColumns, examples: np.ndarray, computed: np.ndarray) -> int:
    """Writes what was computed of some examples, which begins with theirs, into the values of all. How many it took."""
    starts = columns.scored_starts[columns.members[examples]]
    places = ranges(starts, columns.scored_starts[columns.members[examples + 1]] - starts)
    values[places] = computed[: len(places)]
    return len(places)
