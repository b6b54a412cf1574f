"""The main job, stage by stage: data, reference, training, comparison, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedModel

from tiltlm.cache import cache_folder
from tiltlm.config import Config
from tiltlm.console import Reporter
from tiltlm.data.ordering import batches
from tiltlm.data.preparation import PreparedData, prepare_data, read_data
from tiltlm.data.templates import choose_template
from tiltlm.data.tokenization import PairTokenizer, check_limits
from tiltlm.errors import ModelError
from tiltlm.evaluation.comparison import Comparer, Figures, Models, Prompt, figures
from tiltlm.evaluation.prompts import extra_prompts, held_out_prompts
from tiltlm.model.loading import (
    ModelSource,
    checkpoint_activations,
    choose_device,
    choose_precision,
    find_model,
    load_model,
    load_tokenizer,
    model_facts,
    save_model,
)
from tiltlm.model.reference import ReferenceCache, fill_cache, fingerprint, missing_pairs, with_reference
from tiltlm.model.scorer import PairScorer
from tiltlm.model_card import model_card
from tiltlm.records import ReferencedPair, TokenizedPair
from tiltlm.report.page import write_report
from tiltlm.report.verdict import verdict
from tiltlm.runs.environment import describe_environment
from tiltlm.runs.folder import RunFolder
from tiltlm.runs.records import Check, EvalRow, Summary, TrainRow
from tiltlm.summary import summarise
from tiltlm.training.checks import run_checks
from tiltlm.training.loop import StopRequest, Trainer, TrainingOutcome
from tiltlm.training.metrics import MetricsLog


@dataclass(frozen=True, slots=True)
class Setup:
    """What the settings come to on this machine, before any weight is loaded."""

    config: Config
    source: ModelSource
    tokenizer: PairTokenizer
    positions: int | None
    device: torch.device
    precision: torch.dtype
    precision_why: str


def set_up(config: Config) -> Setup:
    """Finds the model's files, tokenizer and limits, the device and the arithmetic.

    Raises:
        ModelError, ConfigError: something named in the settings is not there.
    """
    torch.manual_seed(config.run.seed)
    device = choose_device(config.model.device)
    precision, why = choose_precision(config.model.precision, device)
    source = find_model(config.model.path, config.hub, config.model.trust_remote_code)
    tokenizer = load_tokenizer(source)
    facts = model_facts(source, tokenizer)
    check_limits(config.data, config.comparison, facts.positions)
    choose_template(tokenizer, config.model.chat_template)
    encoder = PairTokenizer(tokenizer, config.data, facts.terminators)
    return Setup(config, source, encoder, facts.positions, device, precision, why)


def train(config: Config, command: Sequence[str], reporter: Reporter) -> Summary:
    """Runs the whole job and leaves its files in the run's folder. Returns the summary as written.

    Raises:
        TiltlmError: with what is wrong and how to mend it.
    """
    start = time.perf_counter()
    RunFolder.require_free(Path(config.run.directory), config.run.name, config.run.overwrite)
    with reporter.stage("data", "1/5 Data"):
        setup = set_up(config)
        data = _prepare(setup, reporter)
        # A prompt that cannot be asked is found out before the work, not after it.
        extra_prompts(config.comparison.extra_prompts, data.report.chat, setup.tokenizer, prompt_room(setup))
    folder = RunFolder.create(Path(config.run.directory), config.run.name, config.run.overwrite)
    environment = describe_environment(tuple(command), _device_name(setup.device), setup.precision_why)
    folder.write_json("config.json", config)
    folder.write_json("environment.json", environment)
    folder.write_json("data_report.json", data.report)

    with reporter.stage("reference", "2/5 Reference log-probabilities"):
        scorer = PairScorer(load_model(setup.source, setup.device))
        _require_vocabulary(scorer.model, data)
        reporter.say(f"  {_describe_model(scorer)}; {setup.precision_why}")
        train_pairs, eval_pairs = _reference(setup, scorer, data, reporter)

    with reporter.stage("training", "3/5 Training"):
        checks, outcome = _train(setup, scorer, train_pairs, eval_pairs, folder, reporter)
        save_model(scorer.model, setup.tokenizer.tokenizer, folder.model)

    with reporter.stage("comparison", "4/5 Answers before and after"):
        shown = _compare(setup, scorer, data, folder, reporter) if outcome.completed else Figures(counted_prompts=0)

    with reporter.stage("report", "5/5 Report"):
        summary = summarise(
            config, setup.device, data, checks, outcome, shown, dict(reporter.stages), time.perf_counter() - start
        )
        folder.write_json("summary.json", summary)
        card = model_card(config, environment, data.report, summary)
        (folder.model / "README.md").write_text(card, encoding="utf-8")
        write_report(folder.path)
    _conclude(folder, summary, reporter)
    return summary


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
        reporter.say(f"  {note}")
    reporter.say(f"  {len(data.train)} pairs to train on, {len(data.eval)} held out")
    return data


def _require_vocabulary(model: PreTrainedModel, data: PreparedData) -> None:
    rows = cast(torch.nn.Embedding, model.get_input_embeddings()).num_embeddings
    for pair in (*data.train, *data.eval):
        largest = int(max(pair.chosen.ids.max(), pair.rejected.ids.max()))
        if largest >= rows:
            raise ModelError(
                f"{pair.id} has token {largest}, but the model embeds {rows} tokens: the tokenizer is another model's."
            )


def _reference(
    setup: Setup, scorer: PairScorer, data: PreparedData, reporter: Reporter
) -> tuple[list[ReferencedPair], list[ReferencedPair]]:
    """Joins all pairs with their reference log-probabilities, computing those the cache lacks."""
    reference = scorer
    if setup.config.model.reference is not None:
        reference = PairScorer(load_model(_reference_source(setup), setup.device))
    cache = ReferenceCache(cache_folder() / "reference", fingerprint(reference.model), setup.precision)
    pairs: list[TokenizedPair] = [*data.train, *data.eval]
    missing = missing_pairs(pairs, cache)
    reporter.say(f"  {len(pairs) - len(missing)} of {len(pairs)} pairs are in the cache {cache.path.name}")
    if missing:
        with reporter.progress("reference", len(missing), "pairs") as advance:
            budget = setup.config.training.micro_batch_tokens
            fill_cache(reference, missing, cache, setup.precision, budget, advance)
    joined = with_reference(data.train, cache), with_reference(data.eval, cache)
    cache.close()
    return joined


def _reference_source(setup: Setup) -> ModelSource:
    """Where the reference is loaded from; another model must read the same tokens."""
    name = setup.config.model.reference
    if name is None:
        return setup.source
    source = find_model(name, setup.config.hub, setup.config.model.trust_remote_code)
    if load_tokenizer(source).get_vocab() != setup.tokenizer.tokenizer.get_vocab():
        raise ModelError(
            f"the reference {name} has another vocabulary than the model: their tokens cannot be compared."
        )
    return source


def _train(
    setup: Setup,
    scorer: PairScorer,
    train_pairs: list[ReferencedPair],
    eval_pairs: list[ReferencedPair],
    folder: RunFolder,
    reporter: Reporter,
) -> tuple[list[Check], TrainingOutcome]:
    config = setup.config
    if config.training.activation_checkpointing:
        checkpoint_activations(scorer.model)
    trainer = Trainer(scorer, config, setup.precision)
    steps = trainer.total_steps(len(train_pairs))
    first = next(batches(len(train_pairs), config.training.batch_pairs, steps, config.run.seed))
    checks = run_checks(trainer, [train_pairs[i] for i in first], setup.tokenizer)
    for check in checks:
        reporter.say(f"  checked: {check.name}: {check.detail}")
    with (
        MetricsLog(folder.metrics) as log,
        StopRequest() as stop,
        reporter.progress("training", steps, "steps") as advance,
    ):

        def on_row(row: TrainRow | EvalRow) -> None:
            if isinstance(row, EvalRow):
                low, high = row.accuracy_interval or (0.0, 1.0)
                reporter.say(
                    f"  step {row.step}: held-out loss {row.loss:.4f}, accuracy {row.accuracy:.3f} "
                    f"[{low:.3f}, {high:.3f}], margin {row.margin:+.3f}"
                )
            else:
                advance(1)

        outcome = trainer.train(train_pairs, eval_pairs, log, stop, on_row)
    return checks, outcome


def _compare(setup: Setup, trained: PairScorer, data: PreparedData, folder: RunFolder, reporter: Reporter) -> Figures:
    """Answers prompts with the model as it was and as it is; writes `comparison.json`."""
    config = setup.config
    prompts: list[Prompt] = [
        *held_out_prompts(data.eval_rendered, config.comparison.prompts, setup.tokenizer, prompt_room(setup)),
        *extra_prompts(config.comparison.extra_prompts, data.report.chat, setup.tokenizer, prompt_room(setup)),
    ]
    if not prompts:
        return Figures(counted_prompts=0)
    before = PairScorer(load_model(setup.source, setup.device))
    reference = before
    if config.model.reference is not None:
        reference = PairScorer(load_model(_reference_source(setup), setup.device))
    comparer = comparer_for(setup)
    with reporter.progress("answering", comparer.passes() * len(prompts), "prompts") as advance:
        comparison = comparer.compare(Models(before, trained, reference), prompts, advance)
    folder.write_json("comparison.json", comparison)
    return figures(comparison)


def prompt_room(setup: Setup) -> int | None:
    """Most tokens of a prompt that leave the model positions for the answer; None where it has no such limit."""
    return None if setup.positions is None else setup.positions - setup.config.comparison.max_new_tokens


def comparer_for(setup: Setup) -> Comparer:
    """The comparer that a run's settings describe."""
    return Comparer(
        tokenizer=setup.tokenizer.tokenizer,
        config=setup.config.comparison,
        seed=setup.config.run.seed,
        terminators=frozenset(setup.tokenizer.terminators),
        precision=setup.precision,
        token_budget=setup.config.training.micro_batch_tokens,
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def _describe_model(scorer: PairScorer) -> str:
    parameters = sum(parameter.numel() for parameter in scorer.parameters())
    sharing = "shared prompts" if scorer.trees else f"prompts not shared, as {scorer.unshared_because}"
    return f"{type(scorer.model).__name__}, {parameters / 1e6:,.0f} million parameters, {sharing}"


def _conclude(folder: RunFolder, summary: Summary, reporter: Reporter) -> None:
    reporter.say("")
    for sentence in verdict(summary):
        reporter.say(sentence)
    reporter.say(f"The trained model is in {folder.model}, the report in {folder.path / 'report.html'}.")
    if summary.completed:
        reporter.say(f'Ask both models yourself: tiltlm compare {folder.path} --prompt "..."')
