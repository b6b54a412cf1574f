"""A checkpoint as a model that stock transformers loads, saved as the trained model is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from tiltlm.checkpoints.checkpoint_folder import DamagedError, checkpoints_in, verified
from tiltlm.checkpoints.identity import ARITHMETIC
from tiltlm.checkpoints.keeper import best
from tiltlm.checkpoints.state_files import read_state
from tiltlm.config import config_from_dict
from tiltlm.errors import RunError
from tiltlm.model.saving import DTYPES
from tiltlm.model.scorer import Scorer
from tiltlm.model.weights import load_model
from tiltlm.pipeline.keeping import keep_model
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
    config = config_from_dict(files.settings)
    checkpoint = _chosen(RunFolder(run).checkpoints, which, config.checkpoint.best)
    try:
        record = verified(checkpoint)
    except DamagedError as error:
        raise RunError(f"the checkpoint {checkpoint} is damaged: {error}.") from error
    prepare_model(config, reporter)
    # What training added to the weights depends on the arithmetic of then, whatever this machine would choose.
    setup = dataclasses.replace(set_up(config), precision=DTYPES[record.identity[ARITHMETIC]])
    policy = Scorer(load_model(setup.source, setup.device))
    weights = read_state(checkpoint).model
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            parameter.copy_(weights[name])
    place.parent.mkdir(parents=True, exist_ok=True)
    reporter.say(f"The checkpoint of step {record.step}, {checkpoint}")
    with StopRequest() as stop:
        keep_model(setup, policy, None, place, stop, reporter)


def _chosen(folder: Path, which: str, by: str) -> Path:
    paths = checkpoints_in(folder)
    by_step = {str(int(path.name.removeprefix("step-"))): path for path in paths}
    chosen = {BEST: best(paths, by), LAST: paths[-1] if paths else None, **by_step}.get(which)
    if chosen is None:
        there = f"there are those of steps {', '.join(by_step)}" if paths else "there is none"
        why = " whose weights were evaluated" if which == BEST else ""
        raise RunError(f"{folder} has no checkpoint `{which}`{why}: {there}.")
    return chosen
