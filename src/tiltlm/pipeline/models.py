"""The models of a run: the one that it starts from, what is trained of it, and the one that it saved."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from tiltlm.distributed.ranks import take, whole
from tiltlm.model.adapters import all_parameters, load_scorer, new_adapter, trained_parameters
from tiltlm.model.dither import add_dither
from tiltlm.model.finding import ModelSource, facts_of_adapter
from tiltlm.model.frozen import Base
from tiltlm.model.memory import BESIDES, held_bytes, memory_of
from tiltlm.model.scorer import Scorer
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup, reference_source
from tiltlm.storage.space import in_words

SLOW_FOR_ADAPTERS = 5e-6
"""The least learning rate with which adapters are commonly trained by DPO (docs/adapters.md)."""


def starting_model(setup: Setup, reporter: Reporter | None = None) -> Scorer:
    """The model that training starts from: with the adapter that model.path names, or before it has a new one."""

    def note(sentence: str) -> None:
        if reporter is not None:
            reporter.say(f"  note: {sentence}")

    return load_scorer(setup.source, setup.device, setup.base, note)


def reference_model(setup: Setup) -> Scorer:
    """The reference, where it is another model than the one that training starts from.

    Beside an adapter it is frozen as the model is: neither is dithered.
    """
    base = None if setup.base is None else Base("none", setup.base.dtype)
    return load_scorer(reference_source(setup), setup.device, base)


def saved_model(setup: Setup, folder: Path) -> Scorer:
    """The model that a run saved, an adapter on the model that it was trained on, kept as it was then."""
    if setup.base is None:
        return load_scorer(ModelSource(str(folder), True, setup.source.trust_remote_code), setup.device)
    source = dataclasses.replace(setup.source, adapter=ModelSource(str(folder), True, False))
    return load_scorer(source, setup.device, setup.base)


def to_be_trained(setup: Setup, start: Scorer) -> Scorer:
    """The model as it is trained: all of it, with the adapter that it has, or with a new one, which changes nothing.

    The reference's values are of the model before: a new adapter adds nothing to them but time.
    """
    if setup.base is None or start.adapter is not None:
        return start
    policy = new_adapter(start, setup.config.adapter, setup.config.run.seed)
    if setup.precision is not torch.float32:
        add_dither(policy.model)
    return policy


def in_one_piece(setup: Setup, shared: Scorer) -> Scorer:
    """The trained model as every rank can have it by itself again, of one that is shared out over ranks."""
    policy = to_be_trained(setup, starting_model(setup))
    for (_, own), (_, part) in zip(policy.trained().items(), shared.trained().items(), strict=True):
        take(own, whole(part.detach()))
    return policy


def say_what_is_trained(setup: Setup, policy: Scorer, reporter: Reporter) -> None:
    """Lines on memory too small for what is trained, on the adapter, and on a learning rate that does not suit one."""
    held, there = held_bytes(policy, setup.config.training.optimizer), memory_of(setup.device)
    if there is not None and held + BESIDES > there:
        reporter.say(
            f"  weights, gradients and the optimizer's numbers take {in_words(held)}, and the {setup.device.type} has "
            f"{in_words(there)} of memory: tiltlm plan shows what would fit"
        )
    if setup.base is None:
        return
    trained, whole = trained_parameters(policy), all_parameters(policy)
    settings, facts = setup.config.adapter, facts_of_adapter(setup.source)
    kind, rank, alpha = (settings if facts is None else facts).kind, settings.rank, settings.alpha
    went_on = ""
    if facts is not None:
        rank, alpha, went_on = facts.rank, facts.alpha, ", gone on with"
        if facts.dropout:
            reporter.say(
                f"  note: the adapter was trained with a dropout of {facts.dropout:g}; here none is ever dropped."
            )
    reporter.say(
        f"  adapter: {kind} of rank {rank}, alpha {alpha:g}{went_on}; {trained:,} parameters are trained beside "
        f"{whole - trained:,} that are kept in {setup.base.in_words}"
    )
    rate = setup.config.training.learning_rate
    if rate < SLOW_FOR_ADAPTERS:
        reporter.say(
            f"  note: training.learning_rate is {rate:g}, which suits the training of all weights; adapters are "
            f"commonly trained with {SLOW_FOR_ADAPTERS:g} to 2e-4"
        )
