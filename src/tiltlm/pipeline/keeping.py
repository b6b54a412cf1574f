"""The trained model into its files: without the dither, rounded to their type, never half there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from tiltlm.distributed.sharding import closed
from tiltlm.model.dither import remove_dither
from tiltlm.model.saving import round_weights, save_model
from tiltlm.model.scorer import Asked, Scorer
from tiltlm.model.scoring import score
from tiltlm.pipeline.models import gathered
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup
from tiltlm.storage.library_errors import as_os_error
from tiltlm.storage.whole_files import written_whole
from tiltlm.training.bound_objective import asked_by
from tiltlm.training.held_out import HeldOut
from tiltlm.training.stop import StopRequest


def keep_model(
    setup: Setup,
    policy: Scorer,
    held_out: HeldOut | None,
    place: Path,
    stop: StopRequest,
    reporter: Reporter,
    reference: Scorer | None = None,
) -> np.ndarray | None:
    """Saves the trained model into a folder, in one move. Its weights are from then on those of the files.

    Those that are shared out over ranks stay as they were trained, without dither; the first rank writes.

    reference: a reference at work, for an objective that looks at its distributions; without dither from then on.

    Returns:
        Float32 values of the held-out examples' scored tokens under the weights as trained (`BoundObjective.columns`),
        where the files hold them rounded; else None.
    """
    if policy.adapter is not None:
        _keep_adapter(setup, policy, place, stop, reporter)
        reporter.say(f"  {place}: {setup.save_why}, for the model {base_name(setup)}")
        return None
    if setup.ranks.several:
        # First: a rank that fails in what follows would otherwise leave the others in the midst of gathering.
        _keep_shared(setup, policy, place, stop, reporter)
        reporter.say(f"  {place}: {setup.save_why}")
        return _as_trained(setup, policy, held_out, reporter, reference)
    values = None
    try:
        if setup.precision is not torch.float32:
            with stop.held():
                remove_dither(policy.model)
        values = _as_trained(setup, policy, held_out, reporter, reference)
    finally:
        with stop.held():
            round_weights(policy.model, setup.save_dtype)
            _write(setup, policy, place)
        reporter.say(f"  {place}: {setup.save_why}")
    return values


def _as_trained(
    setup: Setup, policy: Scorer, held_out: HeldOut | None, reporter: Reporter, reference: Scorer | None
) -> np.ndarray | None:
    """Values of the held-out examples under weights without dither, where the files will not hold these."""
    if held_out is None or setup.save_dtype is torch.float32:
        return None
    if reference is not None and setup.precision is not torch.float32:
        with closed(reference):
            remove_dither(reference.model)
    return exact_values(setup, "held-out examples, the trained weights", policy, held_out, reporter, reference)


def _keep_shared(setup: Setup, policy: Scorer, place: Path, stop: StopRequest, reporter: Reporter) -> None:
    with stop.held():
        if setup.precision is not torch.float32:
            remove_dither(policy.model)
        if (whole := gathered(setup, policy, setup.save_dtype, reporter)) is not None:
            _write(setup, whole, place)


def _write(setup: Setup, whole: Scorer, place: Path) -> None:
    with written_whole(place) as unfinished:
        save_model(whole.model, setup.tokenizer.tokenizer, setup.source, unfinished)


def exact_values(
    setup: Setup,
    what: str,
    scorer: Scorer,
    examples: HeldOut,
    reporter: Reporter,
    reference: Scorer | None = None,
    squares: bool = False,
) -> np.ndarray:
    """What the objective must know of the examples' scored tokens (`BoundObjective.columns`), in float32.

    reference: as it was loaded, for an objective that looks at its distributions.
    squares: whether the columns hold the sums of squares, be it that the objective does without.
    """
    budget, asked = setup.config.training.token_budget, asked_by(setup.objective, reference)
    if squares:
        asked = dataclasses.replace(asked or Asked(), squares=True)
    with reporter.progress(what, len(examples.columns), "examples") as advance:
        return score(scorer, examples.columns, torch.float32, budget, advance, asked=asked, ranks=setup.ranks)


def _keep_adapter(setup: Setup, policy: Scorer, place: Path, stop: StopRequest, reporter: Reporter) -> None:
    with stop.held():
        if setup.precision is not torch.float32:
            remove_dither(policy.model)
        whole = gathered(setup, policy, torch.float32, reporter) if setup.ranks.several else policy
        if whole is None or whole.adapter is None:
            return
        with written_whole(place) as unfinished, as_os_error(place):
            whole.adapter.save(unfinished, base_name(setup))
            setup.tokenizer.tokenizer.save_pretrained(unfinished)


def base_name(setup: Setup) -> str:
    """Where the model of an adapter is found again: its id on the hub, or its folder, from wherever that is asked."""
    folder = Path(setup.source.location)
    return str(folder.resolve()) if folder.is_dir() else setup.source.location
