"""The trained model into its files: without the dither, rounded to their type, never half there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tiltlm.model.dither import remove_dither
from tiltlm.model.saving import round_weights, save_model
from tiltlm.model.scorer import Scorer
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

    Of several ranks, over which the model is shared out, the first one writes.

    reference: a reference at work, for an objective that looks at its distributions; without dither from then on.

    Returns:
        Float32 values of the held-out examples' scored tokens under the weights as trained (`BoundObjective.columns`),
        where the files hold them rounded; else None.
    """
    if policy.adapter is not None:
        _keep_adapter(setup, policy, place, stop)
        reporter.say(f"  {place}: {setup.save_why}, for the model {base_name(setup)}")
        return None
    values = None
    try:
        if setup.precision is not torch.float32:
            with stop.held():
                remove_dither(policy.model)
        if held_out is not None and setup.save_dtype is not torch.float32:
            if reference is not None and setup.precision is not torch.float32:
                remove_dither(reference.model)
            values = exact_values(
                setup, "held-out examples, the trained weights", policy, held_out, reporter, reference
            )
    finally:
        with stop.held():
            if setup.ranks.several:
                whole = gathered(setup, policy, setup.save_dtype)
            else:
                whole = policy
                round_weights(policy.model, setup.save_dtype)
            if whole is not None:
                with written_whole(place) as unfinished:
                    save_model(whole.model, setup.tokenizer.tokenizer, setup.source, unfinished)
        reporter.say(f"  {place}: {setup.save_why}")
    return values


def exact_values(
    setup: Setup, what: str, scorer: Scorer, examples: HeldOut, reporter: Reporter, reference: Scorer | None = None
) -> np.ndarray:
    """What the objective must know of the examples' scored tokens (`BoundObjective.columns`), in float32.

    reference: as it was loaded, for an objective that looks at its distributions.
    """
    budget, asked = setup.config.training.token_budget, asked_by(setup.objective, reference)
    with reporter.progress(what, len(examples.columns), "examples") as advance:
        return score(scorer, examples.columns, torch.float32, budget, advance, asked=asked, ranks=setup.ranks)


def _keep_adapter(setup: Setup, policy: Scorer, place: Path, stop: StopRequest) -> None:
    with stop.held():
        if setup.precision is not torch.float32:
            remove_dither(policy.model)
        whole = gathered(setup, policy, torch.float32) if setup.ranks.several else policy
        if whole is None or whole.adapter is None:
            return
        with written_whole(place) as unfinished, as_os_error(place):
            whole.adapter.save(unfinished, base_name(setup))
            setup.tokenizer.tokenizer.save_pretrained(unfinished)


def base_name(setup: Setup) -> str:
    """Where the model of an adapter is found again: its id on the hub, or its folder, from wherever that is asked."""
    folder = Path(setup.source.location)
    return str(folder.resolve()) if folder.is_dir() else setup.source.location
