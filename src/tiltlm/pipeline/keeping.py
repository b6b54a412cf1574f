"""The trained model into its files: without the dither, rounded to their type, never half there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tiltlm.model.adapter_of_peft import Adapter
from tiltlm.model.dither import remove_dither
from tiltlm.model.saving import round_weights, save_model
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import score
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

    Of several ranks, each of which has the model, the first one writes.

    reference: a reference at work, for an objective that looks at its distributions; without dither from then on.

    Returns:
        Float32 values of the held-out examples' scored tokens under the weights as trained (`BoundObjective.columns`),
        where the files hold them rounded; else None.
    """
    if policy.adapter is not None:
        if setup.ranks.first:
            _keep_adapter(setup, policy, policy.adapter, place, stop)
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
        if setup.ranks.first:
            with stop.held():
                round_weights(policy.model, setup.save_dtype)
                with written_whole(place) as unfinished:
                    save_model(policy.model, setup.tokenizer.tokenizer, setup.source, unfinished)
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


def _keep_adapter(setup: Setup, policy: Scorer, adapter: Adapter, place: Path, stop: StopRequest) -> None:
    with stop.held():
        if setup.precision is not torch.float32:
            remove_dither(policy.model)
        with written_whole(place) as unfinished, as_os_error(place):
            adapter.save(unfinished, base_name(setup))
            setup.tokenizer.tokenizer.save_pretrained(unfinished)


def base_name(setup: Setup) -> str:
    """Where the model of an adapter is found again: its id on the hub, or its folder, from wherever that is asked."""
    folder = Path(setup.source.location)
    return str(folder.resolve()) if folder.is_dir() else setup.source.location
