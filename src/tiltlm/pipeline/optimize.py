"""The third part: training, and saving what came of it however it ended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tiltlm.model.dither import remove_dither
from tiltlm.model.loading import checkpoint_activations
from tiltlm.model.saving import round_weights, save_model
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import score
from tiltlm.pipeline.referencing import ReferencedData
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.run_record import RunRecord
from tiltlm.pipeline.setup import Setup
from tiltlm.pipeline.short_of_memory import memory_explained
from tiltlm.runs.folder import RunFolder
from tiltlm.runs.rows import EvalRow, TrainRow
from tiltlm.runs.whole_files import written_whole
from tiltlm.training.checks import run_checks
from tiltlm.training.held_out import HeldOut
from tiltlm.training.loop import Trainer
from tiltlm.training.observers import MetricsLog, Observer, Observers, Row
from tiltlm.training.stop import StopRequest


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """How training ended.

    completed: whether it ran to its end.
    values: float32 log-probabilities of the held-out examples' scored tokens under the weights as trained, where the
        files hold them rounded; else None.
    """

    completed: bool
    values: np.ndarray | None


def trainer_for(setup: Setup, policy: Scorer, data: ReferencedData) -> Trainer:
    """The trainer that a run's settings describe."""
    config = setup.config
    return Trainer(
        policy, setup.objective, config.training, config.run.seed, setup.precision, data.train, data.held_out
    )


def optimize(
    setup: Setup,
    policy: Scorer,
    data: ReferencedData,
    folder: RunFolder,
    record: RunRecord,
    stop: StopRequest,
    reporter: Reporter,
    observers: tuple[Observer, ...] = (),
) -> Trained:
    """Trains the policy in place and saves it into the run's folder.

    Args:
        observers: are given every row besides the metrics file and the reporter; one that fails is told no more.
    """
    if setup.config.training.activation_checkpointing:
        checkpoint_activations(policy.model)
    trainer, own = trainer_for(setup, policy, data), setup.config.model.reference is None
    checks = run_checks(trainer, setup.tokenizer, own)
    record.checked(checks)
    for check in checks:
        reporter.say(f"  checked: {check.name}: {check.detail}")

    def show(row: Row) -> None:
        if isinstance(row, TrainRow):
            advance(1)
        else:
            _say_evaluation(row, setup.precision, reporter)

    try:
        with (
            MetricsLog(folder.metrics) as log,
            reporter.progress("training", trainer.steps, "steps") as advance,
            # Here already, as what a failed step held is let go of before the weights are saved.
            memory_explained(setup.config, lambda: "training"),
        ):
            completed = trainer.train(stop, Observers((log, show), observers), own)
    except BaseException:
        if trainer.progress.step:
            _keep(setup, policy, None, folder, stop, reporter)
        raise
    progress = trainer.progress
    if not progress.step:
        return Trained(completed, None)
    if progress.seconds > 0:  # a clock of coarse ticks, or one set back, may say otherwise
        rates = (progress.examples / progress.seconds, progress.tokens / progress.seconds)
        reporter.say(f"  {rates[0]:.2f} examples and {rates[1]:,.0f} tokens a second")
    return Trained(completed, _keep(setup, policy, data.exact, folder, stop, reporter))


def _keep(
    setup: Setup,
    policy: Scorer,
    held_out: HeldOut | None,
    folder: RunFolder,
    stop: StopRequest,
    reporter: Reporter,
) -> np.ndarray | None:
    """Saves the trained model. Its weights are from then on those of the files.

    Returns:
        See `Trained.values`.
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
            with written_whole(folder.model) as unfinished:
                save_model(policy.model, setup.tokenizer.tokenizer, setup.source, unfinished)
        reporter.say(f"  {folder.model}: {setup.save_why}")
    return values


def exact_values(setup: Setup, what: str, scorer: Scorer, held_out: HeldOut, reporter: Reporter) -> np.ndarray:
    """The held-out examples' log-probabilities in float32."""
    budget = setup.config.training.micro_batch_tokens
    with reporter.progress(f"held-out examples, {what}", len(held_out.columns), "examples") as advance:
        return score(scorer, held_out.columns, torch.float32, budget, advance)


def _say_evaluation(row: EvalRow, precision: torch.dtype, reporter: Reporter) -> None:
    words = [f"held-out loss {row.loss:.4f}"]
    if row.accuracy is not None:
        low, high = row.accuracy_interval or (0.0, 1.0)
        words.append(f"accuracy {row.accuracy:.3f} [{low:.3f}, {high:.3f}]")
    if row.margin is not None:
        words.append(f"margin {row.margin:+.3f}")
    reporter.say(f"  step {row.step}, in {str(precision).removeprefix('torch.')}: {', '.join(words)}")
