"""The trained model into its files: without the dither, rounded to their type, never half there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from tiltlm.model.dither import remove_dither
from tiltlm.model.saving import round_weights, save_model
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import score
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup
from tiltlm.storage.durable import sync_into_place
from tiltlm.training.held_out import HeldOut
from tiltlm.training.stop import StopRequest


def keep_model(
    setup: Setup,
    policy: Scorer,
    held_out: HeldOut | None,
    place: Path,
    stop: StopRequest,
    reporter: Reporter,
) -> np.ndarray | None:
    """Saves the trained model into a folder, in one move. Its weights are from then on those of the files.

    Returns:
        Float32 log-probabilities of the held-out examples' scored tokens under the weights as trained, where the files
        hold them rounded; else None.
    """
    values = None
    try:
        if setup.precision is not torch.float32:
            with stop.held():
                remove_dither(policy.model)
        if held_out is not None and setup.save_dtype is not torch.float32:
            values = exact_values(setup, "the trained weights", policy, held_out, reporter)
    finally:
        with stop.held():
            round_weights(policy.model, setup.save_dtype)
            unfinished = place.with_name(f".{place.name}.partial")
            shutil.rmtree(unfinished, ignore_errors=True)
            save_model(policy.model, setup.tokenizer.tokenizer, setup.source, unfinished)
            _put_in_place(unfinished, place)
        reporter.say(f"  {place}: {setup.save_why}")
    return values


def _put_in_place(made: Path, place: Path) -> None:
    """Gives the trained model its name, in place of one that the run left when it was stopped before."""
    earlier = place.with_name(f".{place.name}.earlier")
    if place.exists():
        shutil.rmtree(earlier, ignore_errors=True)
        place.rename(earlier)
    sync_into_place(made, place)
    shutil.rmtree(earlier, ignore_errors=True)


def exact_values(setup: Setup, what: str, scorer: Scorer, held_out: HeldOut, reporter: Reporter) -> np.ndarray:
    """The held-out examples' log-probabilities in float32."""
    budget = setup.config.training.micro_batch_tokens
    with reporter.progress(f"held-out examples, {what}", len(held_out.columns), "examples") as advance:
        return score(scorer, held_out.columns, torch.float32, budget, advance)
