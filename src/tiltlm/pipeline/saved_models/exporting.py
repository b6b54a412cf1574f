"""A checkpoint as a model that stock transformers loads, saved as the trained model is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from tiltlm.checkpoints.checkpoint_folder import DamagedError, checkpoints_in, verified
from tiltlm.checkpoints.identity import ARITHMETIC, WEIGHTS, of_policy
from tiltlm.checkpoints.keeper import best
from tiltlm.checkpoints.state_files import read_state
from tiltlm.config.resuming import settings_in_place
from tiltlm.errors import RunError
from tiltlm.model.saving import DTYPES
from tiltlm.pipeline.keeping import keep_model
from tiltlm.pipeline.models import starting_model, to_be_trained
from tiltlm.pipeline.preflight import prepare_model
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import set_up
from tiltlm.runs.folder import RunFolder
from tiltlm.runs.run_files import read_run
from tiltlm.training.stop import StopRequest

BEST, LAST = "best", "last"


def export(run: Path, which: str, place: Path, reporter: Reporter) -> None:
    """Writes the weights of a run's checkpoint as a model, without what training in bfloat16 adds to them.

    Args:
        which: `best`, `last` or a number of steps.
        place: the folder of the model, which must not be there.

    Raises:
        RunError: the run has no such checkpoint, it is damaged, or the folder is there.
    """
    if place.exists():
        raise RunError(f"{place} is there already: name a folder that is not.")
    files = read_run(run)
    config = settings_in_place(run, files.settings)
    checkpoint = _chosen(RunFolder(run), which, config.checkpoint.best)
    try:
        record = verified(checkpoint)
    except DamagedError as error:
        raise RunError(f"the checkpoint {checkpoint} is damaged: {error}.") from error
    prepare_model(config, reporter)
    # What training added to the weights depends on the arithmetic of then, whatever this machine would choose.
    setup = dataclasses.replace(set_up(config), precision=DTYPES[record.identity[ARITHMETIC]])
    policy = starting_model(setup)
    found = of_policy(policy, record.identity[ARITHMETIC])[WEIGHTS]
    if found != record.identity[WEIGHTS]:
        raise RunError(
            f"the model {config.model.path} is not the one that the run was trained from "
            f"({record.identity[WEIGHTS]} then, {found} now): put that one back."
        )
    policy = to_be_trained(setup, policy)
    weights = read_state(checkpoint).model
    with torch.no_grad():
        for name, parameter in policy.trained().items():
            parameter.copy_(weights[name])
    place.parent.mkdir(parents=True, exist_ok=True)
    reporter.say(f"The checkpoint of step {record.step}, {checkpoint}")
    with StopRequest() as stop:
        keep_model(setup, policy, None, place, stop, reporter)


def _chosen(run: RunFolder, which: str, by: str) -> Path:
    paths = checkpoints_in(run.checkpoints)
    by_step = {str(int(path.name.removeprefix("step-"))): path for path in paths}
    if not paths:
        model = f"; the trained model is in {run.model}" if run.model.is_dir() else ""
        raise RunError(f"the run in {run.path} has no checkpoint{model}.")
    steps = ", ".join(by_step)
    chosen = {BEST: best(paths, by if by != "none" else "loss"), LAST: paths[-1], **by_step}.get(which)
    if chosen is None and which == BEST:
        raise RunError(
            f"the run in {run.path} has no best checkpoint, as none was taken at a step that was evaluated: take "
            f"--checkpoint {LAST}, or one by its step: {steps}."
        )
    if chosen is None:
        raise RunError(f"the run in {run.path} has no checkpoint `{which}`: it is {BEST}, {LAST} or a step: {steps}.")
    return chosen
