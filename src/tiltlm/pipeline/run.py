"""A whole run: prepare, reference, optimize, evaluate, compare, report; each a part that others call alike."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tiltlm.checkpoints.identity import of_examples, of_policy, of_reference
from tiltlm.config import Config, settings_table
from tiltlm.config.resuming import Resume
from tiltlm.data.preparation import PreparedData
from tiltlm.distributed.joining import joined
from tiltlm.distributed.ranks import Ranks
from tiltlm.model.adapters import all_parameters, trained_parameters
from tiltlm.model.repeatable import repeatable_kernels
from tiltlm.model.scorer import Scorer
from tiltlm.model.weight_files import require_safe_weights
from tiltlm.pipeline.assess import compare_answers, evaluate, look_at_origins
from tiltlm.pipeline.crediting import require_one_process, with_credit
from tiltlm.pipeline.models import as_trained_at, saved_model, say_what_is_trained, starting_model, to_be_trained
from tiltlm.pipeline.optimize import optimize
from tiltlm.pipeline.own_objective import keep_objective, of_objective, say_tried
from tiltlm.pipeline.preflight import before_work, prepare_model, require_fit
from tiltlm.pipeline.prepare import NOTHING, Given, asked, prepare, require_vocabulary
from tiltlm.pipeline.ranks_at_work import DATA_REPORT, passing_folder, require_same_data, require_same_models, sign
from tiltlm.pipeline.referencing import ReferencedData, with_reference, without_reference
from tiltlm.pipeline.reporter import LogReporter, Reporter
from tiltlm.pipeline.resumption import ReopenedRun, reopened
from tiltlm.pipeline.run_record import RunRecord, conclude
from tiltlm.pipeline.setup import Setup, device_name, require_sound_models, set_up
from tiltlm.pipeline.sizing.short_of_memory import memory_explained
from tiltlm.pipeline.sizing.token_budget import as_it_began, with_budget
from tiltlm.pipeline.work import Work
from tiltlm.report.page import write_report
from tiltlm.report.summary import summarise
from tiltlm.report.verdict import verdict
from tiltlm.runs.earlier_stages import whole_run
from tiltlm.runs.environment import Environment, describe_environment
from tiltlm.runs.folder import RunFolder
from tiltlm.runs.lock import locked
from tiltlm.runs.outcomes import Summary
from tiltlm.runs.run_files import read_run
from tiltlm.training.observers import Observer
from tiltlm.training.stop import StopRequest
from tiltlm.training.trackers import tracked


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
    made: RunFolder | None = None,
    stop: StopRequest | None = None,
) -> Run:
    """Runs the whole job and leaves its files in the run's folder.

    However it ends after the data was read, what training achieved is in the folder, and `summary.json` says how it
    ended.

    Args:
        command: what was typed, for the record. observers: are given every row of the metrics as it is made.
        given: rows in memory, in place of the data that the settings name.
        resume: a run to go on with, whose name and place the settings have.
        made: the run's folder where it is there already, as that of a recipe's stage is, apart from what the run reads.
        stop: asks it to stop after a step.

    Raises:
        TiltlmError: with what is wrong and how to mend it.
    """
    config = config if resume is None else as_it_began(config, resume)
    with stop or StopRequest() as stop, ExitStack() as held:
        ranks = held.enter_context(joined(config.distributed, config.model.device))
        if not ranks.first:
            config, made = held.enter_context(passing_folder(config))
            reporter, observers, resume = LogReporter(), (), None
        _looked_over(config, reporter, ranks, resume is not None, made)
        before = held.enter_context(reopened(config, resume)) if resume is not None else None
        ranks.wait_for_first()  # a checkpoint is read whole to see whether it is
        ended = ranks.agreed(before.folder.path.absolute() if before is not None and before.complete else None)
        if ended is not None:
            return _ended_before(RunFolder(ended) if before is None else before.folder, ranks, reporter)
        with memory_explained(config, lambda: "data"), reporter.stage("data", "1/6 Data"):
            held.enter_context(repeatable_kernels(config.training.deterministic))
            setup, data = _prepared(config, given, reporter, ranks)
        environment = describe_environment(tuple(command), device_name(setup.device), setup.precision_why)
        if before is None:
            folder = held.enter_context(_begun(made, setup, data, environment))
        else:
            folder = _gone_on_in(before, setup, data, environment, reporter)
        record = RunRecord(folder, setup.device, reporter, before.earlier if before is not None else None)
        observers = (*observers, *held.enter_context(tracked(folder.path, setup.config, record.status)))
        try:
            with memory_explained(setup.config, record.current_stage):
                model = ranks.agreed(folder.model.absolute())
                completed = _work(Work(setup, folder, record, stop, reporter, before, model), data, observers)
        except KeyboardInterrupt:
            if not ranks.first:
                raise
            completed = False
        except BaseException as error:
            with suppress(OSError):  # a disk that is full for this file too: what filled it is said
                record.end("failed", str(error) or type(error).__name__)
            raise
        return _recorded(record, completed, folder, setup, reporter) if ranks.first else _of_first(model.parent, ranks)


def _looked_over(config: Config, reporter: Reporter, ranks: Ranks, goes_on: bool, made: RunFolder | None) -> None:
    """What is looked at before any work, of several ranks by the first alone."""
    with ranks.first_then_others():
        if ranks.first:
            before_work(config, reporter, goes_on, made)
        else:
            prepare_model(config, reporter)
    say_tried(config.loss, reporter)


def _prepared(config: Config, given: Given, reporter: Reporter, ranks: Ranks) -> tuple[Setup, PreparedData]:
    """What the settings come to here, with nothing left open, and the examples."""
    with ranks.first_then_others():
        setup = set_up(config, ranks)
        require_one_process(setup)
        require_safe_weights(setup.source)
        models = require_sound_models(setup)
        data = prepare(setup, reporter, given)
    ranks.wait_for_all()
    require_same_models(ranks, models)
    require_same_data(ranks, of_examples(data.train, data.eval) if ranks.several else {})
    return with_budget(setup, data, reporter), data


def _gone_on_in(
    before: ReopenedRun, setup: Setup, data: PreparedData, environment: Environment, reporter: Reporter
) -> RunFolder:
    """The folder of a run that goes on, once it is known to have what it had."""
    before.require_same(of_examples(data.train, data.eval) | of_objective(setup.config.loss))
    before.note_environment(environment, reporter)
    return before.folder


def _recorded(record: RunRecord, completed: bool, folder: RunFolder, setup: Setup, reporter: Reporter) -> Run:
    """The run with its report."""
    summary = record.end("completed" if completed else "interrupted", None)
    with memory_explained(setup.config, lambda: "report"), reporter.stage("report", "6/6 Report"):
        write_report(folder.path)
    setup.ranks.wait_for_first()
    _conclude(folder, summary, reporter)
    return Run(folder.path, summary)


def _of_first(folder: Path, ranks: Ranks) -> Run:
    """The run as the first rank has recorded it, once it has."""
    ranks.wait_for_first()
    return Run(folder, summarise(read_run(folder)))


def _ended_before(folder: RunFolder, ranks: Ranks, reporter: Reporter) -> Run:
    if not ranks.first:
        return _of_first(folder.path, ranks)
    reporter.say(f"The run in {folder.path} came to its end: nothing is left to do.")
    summary = conclude(folder)
    write_report(folder.path)
    ranks.wait_for_first()
    return Run(folder.path, summary)


@contextmanager
def _begun(made: RunFolder | None, setup: Setup, data: PreparedData, environment: Environment) -> Iterator[RunFolder]:
    """The folder of a new run, kept from other processes, with what is known before the work."""
    run = setup.config.run
    folder = made or RunFolder.create(Path(run.directory), run.name, run.overwrite)
    with locked(folder.path):
        folder.write_json("config.json", settings_table(setup.config))
        folder.write_json("environment.json", environment)
        keep_objective(folder, setup.config.loss)
        folder.write_json(DATA_REPORT, data.report)
        if made is None:
            sign(folder)
        yield folder


def _work(work: Work, data: PreparedData, observers: tuple[Observer, ...]) -> bool:
    """Everything after the data. Whether it ran to the end."""
    setup, folder, record, reporter = work.setup, work.folder, work.record, work.reporter
    policy, referenced, identity = _referenced(work, data)
    with record.stage("training", "3/6 Training"):
        trained = optimize(work, policy, data, referenced, observers, identity)
    del policy  # its place is taken by the saved model
    gc.collect()  # what is shared out holds itself
    if not work.model.is_dir():
        reporter.say("  no step was taken, so there is no model to save")
        return False
    with record.stage("evaluation", "4/6 The saved model on held-out examples"):
        saved = saved_model(setup, work.model)
        folder.write_json(
            "evaluation.json", evaluate(setup, as_trained_at(setup, saved), trained, referenced, reporter)
        )
        saved.at_temperature(1.0)
    if setup.ranks.any(not trained.completed or work.stop.requested):
        return False
    with record.stage("comparison", "5/6 Answers before and after"):
        if prompts := asked(setup, data):

            def beside(before: Scorer) -> None:
                look_at_origins(setup, referenced.seen.columns, before, folder, reporter)

            compared = compare_answers(setup, work.model, saved, prompts, reporter, beside=beside)
            folder.write_json("comparison.json", compared)
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
        identity = of_examples(data.train, data.eval) | of_objective(setup.config.loss)
        identity |= of_policy(policy, arithmetic, setup.ranks)
        if work.before is not None:
            work.before.require_same(identity)
        data = with_credit(setup, policy, data, work.folder, reporter)
        referenced = (with_reference if needed else without_reference)(setup, policy, data, work.folder, reporter)
        identity |= of_reference(referenced.train, referenced.held_out)
        if work.before is not None:
            work.before.require_same(identity)
        policy = to_be_trained(setup, policy)
        say_what_is_trained(setup, policy, reporter)
        if setup.base is not None and setup.ranks.first:
            require_fit(trained_parameters(policy), setup.config, work.folder.path, reporter)
        return policy, referenced, identity


def _policy(work: Work, data: PreparedData) -> Scorer:
    setup, reporter = work.setup, work.reporter
    policy = as_trained_at(setup, starting_model(setup, reporter))
    require_vocabulary(setup, policy, data)
    parameters = all_parameters(policy)
    millions = f"{parameters / 1e6:,.0f}" if parameters >= 1e7 else f"{parameters / 1e6:.2g}"
    sharing = "shared prompts" if policy.layout.trees else f"prompts not shared, as {policy.unshared_because}"
    reporter.say(f"  {type(policy.model).__name__}, {millions} million parameters, {sharing}; {setup.precision_why}")
    if setup.base is None and setup.ranks.first:
        require_fit(parameters, setup.config, work.folder.path, reporter)
    return policy


def _conclude(folder: RunFolder, summary: Summary, reporter: Reporter) -> None:
    reporter.say("")
    for sentence in verdict(summary):
        reporter.say(sentence)
    if folder.model.is_dir():
        reporter.say(f"The trained model is in {folder.model}, the report in {folder.path / 'report.html'}.")
    if not summary.completed:
        reporter.say(f"To go on: tiltlm train --resume {whole_run(folder.path)}")
    if summary.completed:
        reporter.say(f'Ask both models yourself: tiltlm compare {folder.path} --prompt "..."')
