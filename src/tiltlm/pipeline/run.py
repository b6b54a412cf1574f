"""A whole run: prepare, reference, optimize, evaluate, compare, report; each a part that others call alike."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tiltlm.checkpoints.identity import of_examples, of_policy, of_reference
from tiltlm.config import Config, settings_table
from tiltlm.config.resuming import Resume
from tiltlm.data.preparation import PreparedData
from tiltlm.model.finding import ModelSource
from tiltlm.model.repeatable import repeatable_kernels
from tiltlm.model.scorer import Scorer
from tiltlm.model.weight_files import require_safe_weights
from tiltlm.model.weights import load_model
from tiltlm.pipeline.assess import compare_answers, evaluate
from tiltlm.pipeline.optimize import optimize
from tiltlm.pipeline.preflight import before_work, require_fit
from tiltlm.pipeline.prepare import NOTHING, Given, asked, prepare, require_vocabulary
from tiltlm.pipeline.referencing import ReferencedData, with_reference, without_reference
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.resumption import DATA_REPORT, reopened
from tiltlm.pipeline.run_record import RunRecord, conclude
from tiltlm.pipeline.setup import Setup, device_name, require_sound_models, set_up
from tiltlm.pipeline.short_of_memory import memory_explained
from tiltlm.pipeline.work import Work
from tiltlm.report.page import write_report
from tiltlm.report.verdict import verdict
from tiltlm.runs.environment import Environment, describe_environment
from tiltlm.runs.folder import RunFolder
from tiltlm.runs.lock import locked
from tiltlm.runs.outcomes import Summary
from tiltlm.training.observers import Observer
from tiltlm.training.stop import StopRequest


@dataclass(frozen=True, slots=True)
class Run:
    """A run that ended: its folder, and its figures. `model`: the folder of the trained model, if one was saved."""

    folder: Path
    summary: Summary

    @property
    def model(self) -> Path:
        return self.folder / "model"


def train(
    config: Config,
    command: Sequence[str],
    reporter: Reporter,
    observers: tuple[Observer, ...] = (),
    given: Given = NOTHING,
    resume: Resume | None = None,
) -> Run:
    """Runs the whole job and leaves its files in the run's folder.

    However it ends after the data was read, what training achieved is in the folder, and `summary.json` says how it
    ended.

    Args:
        command: what was typed, for the record.
        observers: are given every row of the metrics as it is made.
        given: rows in memory, in place of the data that the settings name.
        resume: a run to go on with, whose name and place the settings have.

    Raises:
        TiltlmError: with what is wrong and how to mend it.
    """
    before_work(config, reporter, goes_on=resume is not None)
    with StopRequest() as stop, ExitStack() as held:
        before = held.enter_context(reopened(config, resume)) if resume is not None else None
        if before is not None and before.complete:
            reporter.say(f"The run in {before.folder.path} came to its end: nothing is left to do.")
            summary = conclude(before.folder)
            write_report(before.folder.path)
            return Run(before.folder.path, summary)
        with memory_explained(config, lambda: "data"), reporter.stage("data", "1/6 Data"):
            setup = set_up(config)
            held.enter_context(repeatable_kernels(config.training.deterministic))
            require_safe_weights(setup.source)
            require_sound_models(setup)
            data = prepare(setup, reporter, given)
        if before is None:
            folder = RunFolder.create(Path(config.run.directory), config.run.name, config.run.overwrite)
            held.enter_context(locked(folder.path))
            _begin(folder, setup, data, command)
        else:
            folder = before.folder
            before.require_same(of_examples(data.train, data.eval))
            before.note_environment(_environment(setup, command), reporter)
        record = RunRecord(folder, setup.device, reporter, before.earlier if before is not None else None)
        try:
            with memory_explained(config, record.current_stage):
                completed = _work(Work(setup, folder, record, stop, reporter, before), data, observers)
        except KeyboardInterrupt:
            completed = False
        except BaseException as error:
            with suppress(OSError):  # a disk that is full for this file too: what filled it is said
                record.end("failed", str(error) or type(error).__name__)
            raise
        summary = record.end("completed" if completed else "interrupted", None)
        with memory_explained(config, lambda: "report"), reporter.stage("report", "6/6 Report"):
            write_report(folder.path)
        _conclude(folder, summary, reporter)
        return Run(folder.path, summary)


def _begin(folder: RunFolder, setup: Setup, data: PreparedData, command: Sequence[str]) -> None:
    """Writes what is known before the work."""
    folder.write_json("config.json", settings_table(setup.config))
    folder.write_json("environment.json", _environment(setup, command))
    folder.write_json(DATA_REPORT, data.report)


def _environment(setup: Setup, command: Sequence[str]) -> Environment:
    return describe_environment(tuple(command), device_name(setup.device), setup.precision_why)


def _work(work: Work, data: PreparedData, observers: tuple[Observer, ...]) -> bool:
    """Everything after the data. Whether it ran to the end."""
    setup, folder, record, reporter = work.setup, work.folder, work.record, work.reporter
    policy, referenced, identity = _referenced(work, data)
    with record.stage("training", "3/6 Training"):
        trained = optimize(work, policy, data, referenced, observers, identity)
    del policy  # its place is taken by the saved model
    if not folder.model.is_dir():
        reporter.say("  no step was taken, so there is no model to save")
        return False
    with record.stage("evaluation", "4/6 The saved model on held-out examples"):
        files = ModelSource(str(folder.model), True, setup.source.trust_remote_code)
        saved = Scorer(load_model(files, setup.device))
        folder.write_json("evaluation.json", evaluate(setup, saved, trained, referenced, reporter))
    if not trained.completed or work.stop.requested:
        return False
    with record.stage("comparison", "5/6 Answers before and after"):
        if prompts := asked(setup, data):
            folder.write_json("comparison.json", compare_answers(setup, saved, prompts, reporter))
    return True


def _referenced(work: Work, data: PreparedData) -> tuple[Scorer, ReferencedData, dict[str, str]]:
    """The policy; the examples with the reference's values, of which the objective decides whether there is a stage;
    and what checkpoints will be of, compared with those there are as soon as each part of it is known.
    """
    setup, reporter = work.setup, work.reporter
    needed = setup.objective.needs.reference
    without = f"2/6 Model (`{setup.objective.objective.name}` needs no reference)"
    with work.record.stage(*(("reference", "2/6 Reference log-probabilities") if needed else ("model", without))):
        policy = _policy(work, data)
        arithmetic = str(setup.precision).removeprefix("torch.")
        identity = of_examples(data.train, data.eval) | of_policy(policy, arithmetic)
        if work.before is not None:
            work.before.require_same(identity)
        referenced = (with_reference if needed else without_reference)(setup, policy, data, work.folder, reporter)
        identity |= of_reference(referenced.train, referenced.held_out)
        if work.before is not None:
            work.before.require_same(identity)
        return policy, referenced, identity


def _policy(work: Work, data: PreparedData) -> Scorer:
    setup, reporter = work.setup, work.reporter
    policy = Scorer(load_model(setup.source, setup.device, lambda note: reporter.say(f"  note: {note}")))
    require_vocabulary(setup, policy, data)
    parameters = sum(parameter.numel() for parameter in policy.parameters())
    millions = f"{parameters / 1e6:,.0f}" if parameters >= 1e7 else f"{parameters / 1e6:.2g}"
    sharing = "shared prompts" if policy.trees else f"prompts not shared, as {policy.unshared_because}"
    reporter.say(f"  {type(policy.model).__name__}, {millions} million parameters, {sharing}; {setup.precision_why}")
    require_fit(parameters, setup.config, work.folder.path, reporter)
    return policy


def _conclude(folder: RunFolder, summary: Summary, reporter: Reporter) -> None:
    reporter.say("")
    for sentence in verdict(summary):
        reporter.say(sentence)
    if folder.model.is_dir():
        reporter.say(f"The trained model is in {folder.model}, the report in {folder.path / 'report.html'}.")
    if not summary.completed:
        reporter.say(f"To go on: tiltlm train --resume {folder.path}")
    if summary.completed:
        reporter.say(f'Ask both models yourself: tiltlm compare {folder.path} --prompt "..."')
