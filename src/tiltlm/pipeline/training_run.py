"""The main job, stage by stage: data, reference, training, comparison, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from tiltlm.config import Config, settings_table
from tiltlm.config.validation import require_warmup
from tiltlm.console import Reporter
from tiltlm.data.ordering import batches
from tiltlm.data.preparation import PreparedData, prepare_data, read_data
from tiltlm.evaluation.comparison import Models, Prompt
from tiltlm.evaluation.prompts import extra_prompts, held_out_prompts
from tiltlm.model.dither import add_dither, remove_dither
from tiltlm.model.finding import ModelSource
from tiltlm.model.loading import (
    checkpoint_activations,
)
from tiltlm.model.reference import ReferenceCache, fill_cache, missing_pairs, reference_address, with_reference
from tiltlm.model.saving import round_weights, save_model
from tiltlm.model.scorer import PairScorer
from tiltlm.model.vocabulary import require_embedded
from tiltlm.model.weights import load_model
from tiltlm.pipeline.preflight import before_work, require_fit
from tiltlm.pipeline.run_record import RunRecord
from tiltlm.pipeline.setup import Setup, comparer_for, device_name, prompt_room, reference_source, set_up
from tiltlm.records import ReferencedPair, TokenizedPair
from tiltlm.report.page import write_report
from tiltlm.report.verdict import verdict
from tiltlm.runs.environment import describe_environment
from tiltlm.runs.folder import RunFolder
from tiltlm.runs.outcomes import Summary
from tiltlm.runs.rows import EvalRow, TrainRow
from tiltlm.storage.cache import REFERENCE, cache_folder
from tiltlm.training.checks import run_checks
from tiltlm.training.held_out import HeldOut, evaluate_saved, exact_logps, values_of
from tiltlm.training.loop import StopRequest, Trainer, total_steps
from tiltlm.training.metrics import MetricsLog


@dataclass(frozen=True, slots=True)
class ReferencedData:
    """The pairs with the reference's log-probabilities in the arithmetic of training."""

    train: list[ReferencedPair]
    held_out: list[ReferencedPair]


def train(config: Config, command: Sequence[str], reporter: Reporter) -> Summary:
    """Runs the whole job and leaves its files in the run's folder. Returns the summary as written.

    However it ends after the data was read, what training achieved is in the folder, and `summary.json` says how it
    ended.

    Raises:
        TiltlmError: with what is wrong and how to mend it.
    """
    before_work(config, reporter)
    with StopRequest() as stop:
        with reporter.stage("data", "1/6 Data"):
            setup = set_up(config)
            data = _prepare(setup, reporter)
            # What cannot be done is found out before the work, not after it.
            require_warmup(total_steps(config.training, len(data.train)), config.training)
            extra_prompts(config.comparison.extra_prompts, data.report.chat, setup.tokenizer, prompt_room(setup))
        folder = RunFolder.create(Path(config.run.directory), config.run.name, config.run.overwrite)
        folder.write_json("config.json", settings_table(config))
        environment = describe_environment(tuple(command), device_name(setup.device), setup.precision_why)
        folder.write_json("environment.json", environment)
        folder.write_json("data_report.json", data.report)
        record = RunRecord(folder, setup.device, reporter)
        try:
            completed = _work(setup, data, folder, record, stop, reporter)
        except KeyboardInterrupt:
            completed = False
        except BaseException as error:
            record.end("failed", str(error) or type(error).__name__)
            raise
        summary = record.end("completed" if completed else "interrupted", None)
        with reporter.stage("report", "6/6 Report"):
            write_report(folder.path)
        _conclude(folder, summary, reporter)
        return summary


def _work(
    setup: Setup, data: PreparedData, folder: RunFolder, record: RunRecord, stop: StopRequest, reporter: Reporter
) -> bool:
    """Everything after the data: reference, training, the saved model's figures, answers. Whether it ran to the end."""
    with record.stage("reference", "2/6 Reference log-probabilities"):
        scorer = PairScorer(load_model(setup.source, setup.device, lambda note: reporter.say(f"  note: {note}")))
        _require_vocabulary(setup, scorer.model, data)
        reporter.say(f"  {_describe_model(scorer)}; {setup.precision_why}")
        require_fit(sum(weight.numel() for weight in scorer.parameters()), folder.path, reporter)
        pairs, held_out = _reference(setup, scorer, data, reporter)
    with record.stage("training", "3/6 Training"):
        completed, trained_P2 = _train(setup, scorer, pairs, held_out, folder, record, stop, reporter)
    del scorer  # its place is taken by the saved model
    if not folder.model.is_dir():
        reporter.say("  no step was taken, so there is no model to save")
        return False
    with record.stage("evaluation", "4/6 The saved model on held-out pairs"):
        files = ModelSource(str(folder.model), True, setup.source.trust_remote_code)
        saved = PairScorer(load_model(files, setup.device))
        _evaluate(setup, saved, trained_P2, held_out, folder, reporter)
    if not completed or stop.requested:
        return False
    with record.stage("comparison", "5/6 Answers before and after"):
        _compare(setup, saved, data, folder, reporter)
    return True


def _prepare(setup: Setup, reporter: Reporter) -> PreparedData:
    read = read_data(setup.config)
    with reporter.progress("tokenizing", len(read.train) + len(read.held_out), "pairs") as advance:
        data = prepare_data(read, setup.tokenizer, advance)
    for source in data.report.sources:
        reporter.say(
            f"  {source.name} ({source.role}): {source.rows} rows read as `{source.format}` "
            f"({source.format_why}), {source.pairs} pairs"
        )
    dropped = data.report.dropped
    if dropped.count:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.by_reason.items())
        reporter.say(f"  dropped {dropped.count}, each listed in data_report.json: {reasons}")
    for note in data.report.notes:
        reporter.say(f"  note: {note}")
    reporter.say(f"  {len(data.train)} pairs to train on, {len(data.eval)} held out")
    return data


def _require_vocabulary(setup: Setup, model: PreTrainedModel, data: PreparedData) -> None:
    pairs = (*data.train, *data.eval)
    extra = extra_prompts(setup.config.comparison.extra_prompts, data.report.chat, setup.tokenizer, prompt_room(setup))
    named = [(pair.id, side.ids) for pair in pairs for side in (pair.chosen, pair.rejected)]
    require_embedded(model, setup.tokenizer.tokenizer, [*named, *((prompt.id, prompt.ids) for prompt in extra)])


def _reference(
    setup: Setup, scorer: PairScorer, data: PreparedData, reporter: Reporter
) -> tuple[ReferencedData, HeldOut]:
    """Joins all pairs with their reference log-probabilities, computing those the cache lacks.

    The held-out pairs are scored in float32 too, for the figures of the saved model. For training in bfloat16 the
    weights of `scorer`, and those of the reference, are dithered from here on.
    """
    reference = scorer
    if setup.config.model.reference is not None:
        reference = PairScorer(load_model(reference_source(setup), setup.device))
        _require_vocabulary(setup, reference.model, data)
    exact = _cached(setup, reference, data.eval, torch.float32, reporter)
    start = exact if reference is scorer else _cached(setup, scorer, data.eval, torch.float32, reporter)
    if setup.precision is not torch.float32:
        for one in (scorer,) if reference is scorer else (scorer, reference):
            add_dither(one.model)
    joined = _cached(setup, reference, [*data.train, *data.eval], setup.precision, reporter)
    train, held_out = joined[: len(data.train)], joined[len(data.train) :]
    return ReferencedData(train, held_out), HeldOut(exact, values_of(start))


def _cached(
    setup: Setup, scorer: PairScorer, pairs: Sequence[TokenizedPair], precision: torch.dtype, reporter: Reporter
) -> list[ReferencedPair]:
    """Pairs with a model's log-probabilities, from the cache or computed now."""
    name = str(precision).removeprefix("torch.")
    cache = ReferenceCache(cache_folder() / REFERENCE, reference_address(scorer, precision))
    missing = missing_pairs(pairs, cache)
    reporter.say(f"  in {name}, {len(pairs) - len(missing)} of {len(pairs)} pairs are in the cache ({cache.path.name})")
    if missing:
        with reporter.progress(f"reference, {name}", len(missing), "pairs") as advance:
            fill_cache(scorer, missing, cache, precision, setup.config.training.micro_batch_tokens, advance)
    joined = with_reference(pairs, cache)
    cache.close()
    return joined


def _train(
    setup: Setup,
    scorer: PairScorer,
    pairs: ReferencedData,
    held_out: HeldOut,
    folder: RunFolder,
    record: RunRecord,
    stop: StopRequest,
    reporter: Reporter,
) -> tuple[bool, np.ndarray | None]:
    """Trains, and saves what came of it however it ended.

    Returns:
        Whether training ran to its end; and, where the files hold the weights rounded, the held-out log-probabilities
        of the weights as trained.
    """
    config = setup.config
    if config.training.activation_checkpointing:
        checkpoint_activations(scorer.model)
    trainer = Trainer(scorer, config, setup.precision)
    steps = total_steps(config.training, len(pairs.train))
    first = next(batches(len(pairs.train), config.training.batch_pairs, steps, config.run.seed))
    checks = run_checks(trainer, [pairs.train[i] for i in first], setup.tokenizer)
    record.checked(checks)
    for check in checks:
        reporter.say(f"  checked: {check.name}: {check.detail}")
    taken = 0

    def on_row(row: TrainRow | EvalRow) -> None:
        nonlocal taken
        if isinstance(row, TrainRow):
            taken += 1
            advance(1)
        else:
            _say_evaluation(row, setup.precision, reporter)

    try:
        with (
            MetricsLog(folder.metrics) as log,
            reporter.progress("training", steps, "steps") as advance,
        ):
            completed = trainer.train(pairs.train, pairs.held_out, log, stop, on_row).completed
    except BaseException:
        if taken:
            _keep(setup, scorer, None, folder, stop, reporter)
        raise
    return completed, _keep(setup, scorer, held_out, folder, stop, reporter) if taken else None


def _keep(
    setup: Setup,
    scorer: PairScorer,
    held_out: HeldOut | None,
    folder: RunFolder,
    stop: StopRequest,
    reporter: Reporter,
) -> np.ndarray | None:
    """Saves the trained model. Its weights are from then on those of the files.

    Returns:
        Where the files hold the weights rounded, the held-out log-probabilities of the weights as trained.
    """
    if setup.precision is not torch.float32:
        with stop.held():
            remove_dither(scorer.model)
    trained_P2 = None
    try:
        if held_out is not None and setup.save_dtype is not torch.float32:
            trained_P2 = _exactly(setup, "the trained weights", scorer, held_out, reporter)
    finally:
        with stop.held():
            round_weights(scorer.model, setup.save_dtype)
            unfinished = folder.path / ".model.partial"
            save_model(scorer.model, setup.tokenizer.tokenizer, setup.source, unfinished)
            unfinished.replace(folder.model)
        reporter.say(f"  {folder.model}: {setup.save_why}")
    return trained_P2


def _exactly(setup: Setup, what: str, scorer: PairScorer, held_out: HeldOut, reporter: Reporter) -> np.ndarray:
    """The held-out pairs' log-probabilities in float32."""
    budget = setup.config.training.micro_batch_tokens
    with reporter.progress(f"held-out pairs, {what}", len(held_out.pairs), "pairs") as advance:
        return exact_logps(scorer, held_out.tokenized, budget, advance)


def _evaluate(
    setup: Setup,
    saved: PairScorer,
    trained_P2: np.ndarray | None,
    held_out: HeldOut,
    folder: RunFolder,
    reporter: Reporter,
) -> None:
    """The saved model's figures on the held-out pairs; writes `evaluation.json`."""
    start = time.perf_counter()
    saved_P2 = _exactly(setup, "the saved model", saved, held_out, reporter)
    name = str(setup.save_dtype).removeprefix("torch.")
    evaluation = evaluate_saved(saved_P2, trained_P2, held_out, setup.config.loss, name, start)
    folder.write_json("evaluation.json", evaluation)
    reporter.say(f"  in float32: {_held_out_words(evaluation.figures, with_interval=False)}")


def _say_evaluation(row: EvalRow, precision: torch.dtype, reporter: Reporter) -> None:
    name = str(precision).removeprefix("torch.")
    reporter.say(f"  step {row.step}, in {name}: {_held_out_words(row, with_interval=True)}")


def _held_out_words(row: EvalRow, with_interval: bool) -> str:
    """What an evaluation found; what it could not measure is left out."""
    words = f"held-out loss {row.loss:.4f}"
    if row.accuracy is not None:
        words += f", accuracy {row.accuracy:.3f}"
        if with_interval and row.accuracy_interval is not None:
            words += " [{:.3f}, {:.3f}]".format(*row.accuracy_interval)
    return words if row.margin is None else f"{words}, margin {row.margin:+.3f}"


def _compare(setup: Setup, trained: PairScorer, data: PreparedData, folder: RunFolder, reporter: Reporter) -> None:
    """Answers prompts with the model as it was and as it is; writes `comparison.json`."""
    config = setup.config
    prompts: list[Prompt] = [
        *held_out_prompts(data.eval_rendered, config.comparison.prompts, setup.tokenizer, prompt_room(setup)),
        *extra_prompts(config.comparison.extra_prompts, data.report.chat, setup.tokenizer, prompt_room(setup)),
    ]
    if not prompts:
        return
    before = PairScorer(load_model(setup.source, setup.device))
    reference = before
    if config.model.reference is not None:
        reference = PairScorer(load_model(reference_source(setup), setup.device))
    comparer = comparer_for(setup)
    with reporter.progress("answering", comparer.total(prompts), "passes") as advance:
        comparison = comparer.compare(Models(before, trained, reference), prompts, advance)
    folder.write_json("comparison.json", comparison)


def _describe_model(scorer: PairScorer) -> str:
    parameters = sum(parameter.numel() for parameter in scorer.parameters())
    sharing = "shared prompts" if scorer.trees else f"prompts not shared, as {scorer.unshared_because}"
    return f"{type(scorer.model).__name__}, {parameters / 1e6:,.0f} million parameters, {sharing}"


def _conclude(folder: RunFolder, summary: Summary, reporter: Reporter) -> None:
    reporter.say("")
    for sentence in verdict(summary):
        reporter.say(sentence)
    if folder.model.is_dir():
        reporter.say(f"The trained model is in {folder.model}, the report in {folder.path / 'report.html'}.")
    if summary.completed:
        reporter.say(f'Ask both models yourself: tiltlm compare {folder.path} --prompt "..."')
