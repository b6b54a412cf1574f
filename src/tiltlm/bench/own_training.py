"""Our own training, timed: the parts that a run is made of, put together as a run does, or with one of them changed."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tiltlm.bench.job import Job, read_pairs
from tiltlm.bench.matrix_peak import wait_for
from tiltlm.bench.speed_record import Timed
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.compiled_layers import compile_layers
from tiltlm.model.dither import add_dither
from tiltlm.model.kept_memory import keep_memory
from tiltlm.model.loading import checkpoint_activations
from tiltlm.model.reference import ReferenceCache, reference_values
from tiltlm.model.scorer import Scorer
from tiltlm.pipeline.models import starting_model
from tiltlm.pipeline.setup import Setup, set_up
from tiltlm.plan.batches import Plan
from tiltlm.plan.steps import ahead
from tiltlm.runs.environment import peak_memory_gib
from tiltlm.training.loop import Trainer
from tiltlm.training.step_plans import Referenced
from tiltlm.training.stop import StopRequest

Planned = Callable[[Referenced, np.ndarray, int, Scorer], Plan]


def as_trained(pairs: Referenced, examples: np.ndarray, budget: int, scorer: Scorer) -> Plan:
    """The plan that training makes."""
    return pairs.plan(examples, budget, scorer.layout)


@dataclass(frozen=True, slots=True)
class Composition:
    """What training is made of. scorer: made of the scorer as it is loaded. planned: how a step is laid out."""

    scorer: Callable[[Scorer], Scorer] = lambda loaded: loaded
    planned: Planned = as_trained


AS_IT_IS = Composition()


def own_training(job: Job, composition: Composition, live: bool) -> Timed:
    """Times a training of ours.

    live: compute the reference's values here, before training, as a run does whose cache has none; else they are in the
        job's folder.
    """
    keep_memory()  # as the commands that train do
    setup = set_up(job.config)
    scorer, columns = _policy(setup), read_pairs(Path(job.pairs))
    if live:
        values, reference_seconds = _computed(setup, scorer, columns, job.batch)
    else:
        values, reference_seconds = known_values(job, setup, scorer, columns), 0.0
    if setup.config.training.compile:
        compile_layers(scorer.model)
    if setup.config.training.activation_checkpointing:
        checkpoint_activations(scorer.model)
    scorer = composition.scorer(scorer)
    pairs = Referenced(columns, values)
    trainer = _trainer(setup, scorer, pairs)
    seconds, losses = [], []
    with StopRequest() as stop, contextlib.closing(ahead(_plans(job, trainer, pairs, composition.planned))) as plans:
        start = time.perf_counter()
        for plan in plans:
            losses.append(trainer.step(plan, stop).loss)
            wait_for(scorer.device)
            end = time.perf_counter()
            seconds.append(end - start)
            start = end
    return Timed(tuple(seconds), tuple(losses), reference_seconds, peak_gib(scorer.device))


def fill_reference(job: Job) -> None:
    """Computes the reference's values of all pairs and keeps them in the job's folder."""
    setup = set_up(job.config)
    known_values(job, setup, _policy(setup), read_pairs(Path(job.pairs)))


def known_values(job: Job, setup: Setup, scorer: Scorer, columns: TokenColumns) -> np.ndarray:
    """The reference's values from the job's folder; computed and kept where it lacks some."""
    cache = ReferenceCache(Path(job.reference), str(setup.precision).removeprefix("torch."))
    with contextlib.closing(cache):
        return reference_values(scorer, columns, cache, setup.precision, setup.config.training.token_budget)


def peak_gib(device: torch.device) -> float | None:
    """The largest memory of this process: allocated on a GPU, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return peak_memory_gib()


def _policy(setup: Setup) -> Scorer:
    scorer = starting_model(setup)
    if setup.precision is not torch.float32:
        add_dither(scorer.model)
    return scorer


def _computed(setup: Setup, scorer: Scorer, columns: TokenColumns, batch: int) -> tuple[np.ndarray, float]:
    """The reference's values, and how many seconds those of all but the first step's pairs took.

    The first step's come first and are not counted, as that step is not.
    """
    parts, seconds = [], 0.0
    with tempfile.TemporaryDirectory() as scratch:
        cache = ReferenceCache(Path(scratch), "computed")
        with contextlib.closing(cache):
            for numbers in (range(batch), range(batch, len(columns))):
                start, budget = time.perf_counter(), setup.config.training.token_budget
                parts.append(reference_values(scorer, columns.take(numbers), cache, setup.precision, budget))
                wait_for(scorer.device)
                seconds = time.perf_counter() - start
    return np.concatenate(parts), seconds


def _trainer(setup: Setup, scorer: Scorer, pairs: Referenced) -> Trainer:
    assert pairs.reference is not None
    # A trainer has something to evaluate, and does not here.
    one = pairs.columns.take([0])
    held_out = Referenced(one, pairs.reference[: one.scored_starts[-1]])
    training = dataclasses.replace(setup.config.training, schedule="constant", warmup_steps=0)
    return Trainer(scorer, setup.objective, training, setup.config.run.seed, setup.precision, pairs, held_out)


def _plans(job: Job, trainer: Trainer, pairs: Referenced, planned: Planned) -> Iterator[Plan]:
    for step in range(job.steps):
        made = planned(pairs, job.examples(step), trainer.training.token_budget, trainer.scorer)
        yield made.pinned() if trainer.scorer.device.type == "cuda" else made
