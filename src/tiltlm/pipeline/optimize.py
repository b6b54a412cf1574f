"""The third part: training, and saving what came of it however it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiltlm.checkpoints.keeper import Checkpoints
from tiltlm.config import settings_table
from tiltlm.data.preparation import PreparedData
from tiltlm.errors import NonFiniteError
from tiltlm.model.compiled_layers import compile_layers
from tiltlm.model.loading import checkpoint_activations
from tiltlm.model.scorer import Scorer
from tiltlm.objectives.interface import ReferenceUpdate
from tiltlm.pipeline.keeping import keep_model
from tiltlm.pipeline.own_objective import keep_objective, tried
from tiltlm.pipeline.ranks_at_work import DATA_REPORT
from tiltlm.pipeline.referencing import ReferencedData, reference_at_work
from tiltlm.pipeline.remedies import in_a_sentence
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.resumption import effective_settings, restore
from tiltlm.pipeline.setup import Setup
from tiltlm.pipeline.sizing.short_of_memory import memory_explained
from tiltlm.pipeline.work import Work
from tiltlm.runs.rows import EvalRow, TrainRow
from tiltlm.storage.space import in_words
from tiltlm.training.bound_objective import BoundObjective
from tiltlm.training.checks import run_checks
from tiltlm.training.loop import Trainer
from tiltlm.training.observers import MetricsLog, Observer, Observers, Row


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """How training ended.

    completed: whether it ran to its end.
    values: float32 log-probabilities of the held-out examples' scored tokens under the weights as trained, where the
        files hold them rounded; else None.
    objective: with its statistics as training left them.
    """

    completed: bool
    values: np.ndarray | None
    objective: BoundObjective


def trainer_for(setup: Setup, policy: Scorer, data: ReferencedData) -> Trainer:
    """The trainer that a run's settings describe."""
    config = setup.config
    objective = replace(setup.objective, reference=reference_at_work(setup, policy))
    if config.training.compile:
        compile_layers(policy.model)
    if config.training.activation_checkpointing:
        checkpoint_activations(policy.model)
    return Trainer(
        policy,
        objective,
        config.training,
        config.run.seed,
        setup.precision,
        data.train,
        data.held_out,
        setup.ranks,
    )


def optimize(
    work: Work,
    policy: Scorer,
    prepared: PreparedData,
    data: ReferencedData,
    observers: tuple[Observer, ...],
    identity: Mapping[str, str],
) -> Trained:
    """Trains the policy in place and saves it into the run's folder.

    Args:
        observers: are given every row besides the metrics file and the reporter; one that fails is told no more.
        identity: what checkpoints will be of.
    """
    setup, reporter, folder = work.setup, work.reporter, work.folder
    trainer = _checked_trainer(work, policy, data)
    settings = effective_settings(setup.config)
    checkpoints = Checkpoints(
        folder.checkpoints, setup.config.checkpoint, folder.metrics, settings, identity, reporter.say, setup.ranks
    )
    with setup.ranks.first_then_others():
        found = None if work.before is None else work.before.checkpoint(trainer, reporter)
    found = setup.ranks.agreed(found)
    if found is not None:
        restore(trainer, found)
    if work.before is not None:
        work.before.restored(trainer, checkpoints, reporter)
        repeatable = setup.device.type == "cpu" or setup.config.training.deterministic
        work.record.went_on(work.before.resumption(repeatable))
        if work.before.differences:
            folder.write_json("config.json", settings_table(setup.config))
            keep_objective(folder, setup.config.loss)
            folder.write_json(DATA_REPORT, prepared.report)
    progress = trainer.progress
    try:
        completed = _train(work, trainer, checkpoints, observers)
    except BaseException as error:
        if isinstance(error, NonFiniteError):
            with work.stop.held():
                checkpoints.ended(trainer, False)  # from where another learning rate may go on
        if progress.step and not setup.ranks.several:  # ranks that do not end together cannot gather a model
            keep_model(setup, policy, None, work.model, work.stop, reporter)
        raise
    if not progress.step:
        return Trained(completed, None, trainer.objective)
    if progress.seconds > 0:  # a clock of coarse ticks, or one set back, may say otherwise
        rates = (progress.examples / progress.seconds, progress.tokens / progress.seconds)
        reporter.say(f"  {rates[0]:.2f} examples and {rates[1]:,.0f} tokens a second")
    reference = trainer.objective.reference if setup.objective.needs.live else None
    setup.ranks.wait_for_all()  # the first may still have written a checkpoint
    values = keep_model(setup, policy, data.exact, work.model, work.stop, reporter, reference)
    setup.ranks.wait_for_first()
    return Trained(completed, values, replace(trainer.objective, reference=None))


def _checked_trainer(work: Work, policy: Scorer, data: ReferencedData) -> Trainer:
    """The trainer before its first step, after the start-up checks, also of a run that goes on."""

    trainer = trainer_for(work.setup, policy, data)
    if (reference := trainer.objective.reference) is not None:
        work.reporter.say(f"  {_second_model(reference, trainer.objective.moves)}")
    checks = tried(work.setup.config.loss)
    checks += run_checks(trainer, work.setup.tokenizer, _starts_at_reference(work.setup))
    work.record.checked(checks)
    for one in checks:
        work.reporter.say(f"  checked: {one.name}: {one.detail}")
    return trainer


def _second_model(reference: Scorer, moves: ReferenceUpdate | None) -> str:
    """What a reference at work costs, in words."""
    held = in_words(sum(weights.numel() * weights.element_size() for weights in reference.parameters()))
    words = f"the reference is a second model at work: {held} of memory, and a forward pass more in every step"
    if moves is None:
        return words
    every = "every step" if moves.every == 1 else f"every {moves.every} steps"
    return f"{words}; {every} it moves by {moves.weight:g} of the way to the policy, and checkpoints hold it too"


def _starts_at_reference(setup: Setup) -> bool:
    return setup.config.model.reference is None


def _train(work: Work, trainer: Trainer, checkpoints: Checkpoints, observers: tuple[Observer, ...]) -> bool:
    """Trains, with a row and a checkpoint whenever one is due. Whether it came to the end."""
    reporter, left = work.reporter, max(trainer.steps - trainer.progress.step, 0)

    def show(row: Row) -> None:
        if isinstance(row, TrainRow):
            advance(1)
        else:
            _say_evaluation(row, trainer.precision, reporter)

    with (
        checkpoints,
        MetricsLog(work.folder.metrics) as log,
        reporter.progress("training", left, "steps") as advance,
        # Here already, as what a failed step held is let go of before the weights are saved.
        memory_explained(
            work.setup.config, lambda: "training", lambda: in_a_sentence(work.setup, trainer.train_examples.columns)
        ),
    ):
        told = Observers((log, checkpoints.observe, show), observers)
        completed = trainer.train(work.stop, told, _starts_at_reference(work.setup), checkpoints.after_step)
        with work.stop.held():
            checkpoints.ended(trainer, completed)
    if words := checkpoints.in_words():
        reporter.say(f"  {words}")
    return completed


def _say_evaluation(row: EvalRow, precision: torch.dtype, reporter: Reporter) -> None:
    words = [f"held-out loss {row.loss:.4f}"]
    if row.accuracy is not None:
        low, high = row.accuracy_interval or (0.0, 1.0)
        words.append(f"accuracy {row.accuracy:.3f} [{low:.3f}, {high:.3f}]")
    if row.margin is not None:
        words.append(f"margin {row.margin:+.3f}")
    reporter.say(f"  step {row.step}, in {str(precision).removeprefix('torch.')}: {', '.join(words)}")
