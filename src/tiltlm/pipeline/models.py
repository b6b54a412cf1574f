"""The models of a run: the one that it starts from, what is trained of it, and the one that it saved."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from tiltlm.distributed.shares import own_part, whole, with_part
from tiltlm.errors import ConfigError
from tiltlm.model.adapters import (
    Note,
    all_parameters,
    load_pages,
    load_scorer,
    new_adapter,
    trained_parameters,
)
from tiltlm.model.available_memory import available_to_a_rank
from tiltlm.model.dither import add_dither
from tiltlm.model.finding import ModelSource, facts_of_adapter
from tiltlm.model.frozen import Base
from tiltlm.model.memory import BESIDES, held_bytes, memory_of
from tiltlm.model.pages import into_shares, scratch_tensors
from tiltlm.model.saving import rounded
from tiltlm.model.scorer import Scorer
from tiltlm.model.steering_vectors import train_steering_vectors
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup, reference_source
from tiltlm.storage.space import in_words

WHOLE_SHARE = 0.6
"""Share of the memory that is left that models in one piece may take: answers' keys and values want some."""
SLOW_FOR_VECTORS = 1e-4
"""The least learning rate that moves steering vectors in a few hundred steps (docs/steering-vectors.md)."""
SLOW_FOR_ADAPTERS = 5e-6
"""The least learning rate with which adapters are commonly trained by DPO (docs/adapters.md)."""


def starting_model(setup: Setup, reporter: Reporter | None = None) -> Scorer:
    """The model that training starts from: with the adapter that model.path names, or before it has a new one."""

    def note(sentence: str) -> None:
        if reporter is not None:
            reporter.say(f"  note: {sentence}")

    return _loaded(setup, setup.source, setup.base, note)


def _loaded(setup: Setup, source: ModelSource, base: Base | None, note: Note = lambda sentence: None) -> Scorer:
    """A model as it is at work, of several ranks shared out over them."""
    if setup.ranks.several:
        return _shared(setup, _pages(setup, source, base, note), base)
    return _frozen_but_for_vectors(setup, source, load_scorer(source, setup.device, base, note))


def _pages(setup: Setup, source: ModelSource, base: Base | None, note: Note = lambda sentence: None) -> Scorer:
    return _frozen_but_for_vectors(setup, source, load_pages(source, base, note))


def _frozen_but_for_vectors(setup: Setup, source: ModelSource, scorer: Scorer) -> Scorer:
    """The model with steering vectors, where these are trained. Another model beside it, the reference, need not have
    a place for them, and is frozen as the policy is: neither is dithered."""
    if setup.config.training.vectors:
        try:
            train_steering_vectors(scorer.model)
        except ConfigError:
            if source == setup.source:
                raise
            scorer.model.requires_grad_(False)
    return scorer


def _shared(setup: Setup, pages: Scorer, base: Base | None) -> Scorer:
    return into_shares(pages, base, setup.config.distributed, setup.ranks, setup.device)


def reference_model(setup: Setup) -> Scorer:
    """The reference, where it is another model than the one that training starts from.

    Beside an adapter it is frozen as the model is: neither is dithered.
    """
    base = None if setup.base is None else Base("none", setup.base.dtype)
    return _loaded(setup, reference_source(setup), base)


def as_trained_at(setup: Setup, scorer: Scorer) -> Scorer:
    """The same scorer, which means the temperature of training from now on."""
    return scorer.at_temperature(setup.config.training.temperature)


def saved_model(setup: Setup, folder: Path) -> Scorer:
    """The model that a run saved, an adapter on the model that it was trained on, kept as it was then."""
    if setup.base is None:
        return _loaded(setup, ModelSource(str(folder), True, setup.source.trust_remote_code), None)
    source = dataclasses.replace(setup.source, adapter=ModelSource(str(folder), True, False))
    return _loaded(setup, source, setup.base)


def to_be_trained(setup: Setup, start: Scorer) -> Scorer:
    """The model as it is trained: all of it, with the adapter that it has, or with a new one, which changes nothing.

    The reference's values are of the model before: a new adapter adds nothing to them but time.
    """
    if setup.base is None or start.adapter is not None:
        return start
    if setup.ranks.several:  # what is shared out already takes no new weights
        policy = _shared(setup, _with_new_adapter(setup, _pages(setup, setup.source, setup.base)), setup.base)
    else:
        policy = _with_new_adapter(setup, start)
    if setup.precision is not torch.float32:
        add_dither(policy.model)
    return as_trained_at(setup, policy)


def _with_new_adapter(setup: Setup, start: Scorer) -> Scorer:
    return new_adapter(start, setup.config.adapter, setup.config.run.seed)


def gathered(setup: Setup, shared: Scorer, dtype: torch.dtype, reporter: Reporter) -> Scorer | None:
    """The trained model in one piece, its trained weights as a file of `dtype` holds them, of one that is shared out
    over ranks: with the first one, where these weights lie in a file that the system may keep out of memory.

    All ranks ask for it, and wait for the first one to make room.
    """
    trained = shared.trained()
    pages = None

    def said(why: str) -> None:
        reporter.say(f"  the trained weights are gathered in memory, not in a file (TILTLM_SCRATCH): {why}")

    if setup.ranks.first:
        pages = _pages(setup, setup.source, setup.base)
        if setup.base is not None and pages.adapter is None:
            pages = _with_new_adapter(setup, pages)
        places = iter(scratch_tensors([own.shape for own in trained.values()], dtype, said))
    setup.ranks.wait_for_first()
    for name, own in trained.items():
        part, first = own_part(own.detach())
        full = whole(with_part(own, rounded(part.clone(), name, dtype, first)))
        if pages is not None:
            place = next(places)
            place.copy_(full)
            pages.model.get_parameter(name).data = place
    if pages is not None and setup.base is None:  # what stayed as it was is saved in the same type
        for name, own in pages.model.named_parameters():
            if own.dtype is not dtype:
                own.data = rounded(own.detach().to(torch.float32, copy=True), name, dtype)
    return pages


def fits_whole(setup: Setup, model: Scorer, count: int) -> bool:
    """Whether every rank has room for so many models like this one in one piece; all ranks ask.

    Wherever they are to be, each is read into the machine's memory first.
    """
    whole, host = 4 * all_parameters(model), torch.device("cpu")
    wanted = {setup.device: count * whole, **({host: whole} if setup.device != host else {})}
    there = {device: available_to_a_rank(setup.ranks, device) for device in wanted}
    fit = [held is not None and wanted[device] <= WHOLE_SHARE * held for device, held in there.items()]
    return not setup.ranks.any(not all(fit))


def say_what_is_trained(setup: Setup, policy: Scorer, reporter: Reporter) -> None:
    """Lines on memory too small for what is trained, on what is trained where it is not everything, on a learning rate
    that does not suit that, and on a temperature that is not the one at which it will be measured."""
    held, there = held_bytes(policy, setup.config.training.optimizer), memory_of(setup.device)
    if setup.config.distributed.offload:
        there = None  # they are not where memory is told of
    if setup.device.type == "cuda":
        held //= setup.config.distributed.shard or setup.ranks.count
    if there is not None and held + BESIDES > there:
        reporter.say(
            f"  weights, gradients and the optimizer's numbers take {in_words(held)}, and the {setup.device.type} has "
            f"{in_words(there)} of memory: tiltlm plan shows what would fit"
        )
    trained, measured = setup.config.training.temperature, setup.config.comparison
    if trained not in (1, measured.temperature) and measured.samples:
        reporter.say(
            f"  note: training is at temperature {trained:g} (training.temperature), and answers are measured at "
            f"{measured.temperature:g} (comparison.temperature)"
        )
    if setup.base is not None:
        _say_adapter(setup, setup.base, policy, reporter)
    elif setup.config.training.vectors:
        _say_vectors(setup, policy, reporter)


def _say_vectors(setup: Setup, policy: Scorer, reporter: Reporter) -> None:
    trained = trained_parameters(policy)
    stay = all_parameters(policy) - trained
    reporter.say(f"  steering vectors: {trained:,} parameters are trained, and {stay:,} stay as they are")
    rate = setup.config.training.learning_rate
    if rate < SLOW_FOR_VECTORS:
        reporter.say(
            f"  note: training.learning_rate is {rate:g}, which suits the training of all weights; vectors want "
            f"{SLOW_FOR_VECTORS:g} to 1e-2"
        )


def _say_adapter(setup: Setup, base: Base, policy: Scorer, reporter: Reporter) -> None:
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
        f"{whole - trained:,} that are kept in {base.in_words}"
    )
    rate = setup.config.training.learning_rate
    if rate < SLOW_FOR_ADAPTERS:
        reporter.say(
            f"  note: training.learning_rate is {rate:g}, which suits the training of all weights; adapters are "
            f"commonly trained with {SLOW_FOR_ADAPTERS:g} to 2e-4"
        )
