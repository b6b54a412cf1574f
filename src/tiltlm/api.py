"""The same from Python: train, inspect, compare and score, with names and paths or with what a program holds already.

Nothing here prints: what is done is told to Python's `logging` under the name `tiltlm`, or to a `Reporter` of yours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from tiltlm.config import Config, DataConfig, HubConfig, Precision, config_from_dict, load_config
from tiltlm.config.validation import ready
from tiltlm.data.conversion import GivenRows
from tiltlm.data.examples import Example, Message
from tiltlm.data.files.raw_rows import UNREADABLE
from tiltlm.data.files.sources import given_name
from tiltlm.data.formats.fields import Fields, RowError
from tiltlm.data.formats.messages import as_chat
from tiltlm.data.preparation import examine_data, read_data
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.data.tokens.tokenization import ExampleTokenizer, check_limits
from tiltlm.errors import DataError, RunError
from tiltlm.model.finding import find_model
from tiltlm.model.given import fast_tokenizer, in_float32, name_of, own_tokenizer, with_template
from tiltlm.model.loading import choose_device, choose_precision, facts_of, load_tokenizer, model_facts
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import score as score_columns
from tiltlm.model.weights import load_model
from tiltlm.objectives.interface import CHOSEN
from tiltlm.pipeline.assess import ask_models
from tiltlm.pipeline.prepare import Given
from tiltlm.pipeline.reporter import LogReporter, Reporter
from tiltlm.pipeline.run import Run
from tiltlm.pipeline.run import train as run_training
from tiltlm.pipeline.setup import set_up
from tiltlm.runs.answers import Comparison
from tiltlm.runs.data_account import DataReport
from tiltlm.runs.run_files import read_run
from tiltlm.training.observers import Observer

Settings = Config | Mapping[str, Mapping[str, Any]] | str | Path
"""Settings as a `Config`, as nested tables like those of a TOML file, or as the path of such a file."""

Rows = GivenRows
"""Rows of data: a list of dicts or a `datasets.Dataset`, in any of the formats of docs/data.md."""

Model = str | Path | PreTrainedModel

TOKENS_AT_ONCE = 4096
"""Columns in one forward pass of `score`."""


def train(
    config: Settings | None = None,
    *,
    model: Model | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    train: str | Path | Rows | None = None,
    eval: str | Path | Rows | None = None,
    reporter: Reporter | None = None,
    observers: Sequence[Observer] = (),
) -> Run:
    """Runs a whole training, as `tiltlm train` does, and leaves its files in the run's folder.

    A model that is given is not changed: the trained one lies in `Run.model`, for `from_pretrained`.

    Args:
        config: the settings; what is not set keeps its default.
        model: in place of `config.model.path`: a name, a folder, or a loaded model, which needs its `tokenizer`.
        train, eval: in place of `config.data.train` and `config.data.eval`: a name, a path, or rows.
        reporter: is told how it goes; without one Python's `logging` is.
        observers: are called with every row of the metrics as it is made (`TrainRow` or `EvalRow`); one that fails is
            named in a warning and told no more.

    Raises:
        TiltlmError: with what is wrong and how to mend it.
    """
    with _leaving_no_trace():
        settings = _with_model(_settings(config), model, tokenizer)
        settings, given = _with_data(settings, train, eval)
        return run_training(
            ready(settings), ("tiltlm.train",), reporter or LogReporter(), tuple(observers), given=given
        )


def inspect(
    data: str | Path | Rows,
    config: Settings | None = None,
    *,
    model: Model | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> DataReport:
    """What is in preference data as training would see it, as `tiltlm inspect` shows it.

    Data that is not enough to train on has a report all the same.

    Args:
        data: a name, a path, or rows.
        config: the settings; those of data decide.
        model: whose tokenizer counts, as for `train`. A `tokenizer` alone will do.

    Raises:
        DataError: no example can be used.
        TiltlmError: the data or the tokenizer cannot be had.
    """
    settings, given = _with_data(_settings(config), data, None)
    settings = ready(settings)
    if isinstance(model, PreTrainedModel) or (tokenizer is not None and model is None):
        fast = with_template(own_tokenizer(tokenizer), settings.model.chat_template)
        facts = facts_of(model.config, model.generation_config, fast) if model is not None else None
        check_limits(settings.data, settings.comparison, facts.positions if facts is not None else None)
        encoder = ExampleTokenizer(fast, settings.data, facts.terminators if facts is not None else frozenset())
    else:
        with _leaving_no_trace():
            encoder = set_up(_with_model(settings, model, tokenizer)).tokenizer
    prepared, problem = examine_data(
        read_data(settings, settings.loss.objective.needs, given.train), encoder, lambda done: None
    )
    if problem is not None and not len(prepared.train) and not len(prepared.eval):
        raise DataError(problem)
    return prepared.report


def compare(run: str | Path | Run, prompts: Sequence[str] = (), *, reporter: Reporter | None = None) -> Comparison:
    """Answers of a run's model before and after training, as `tiltlm compare` shows them.

    Args:
        run: the run, or its folder.
        prompts: prompts to answer now, written as the training data was; without any, the answers recorded.

    Raises:
        RunError: the run, its model or its recorded answers are missing.
    """
    folder = run.folder if isinstance(run, Run) else Path(run).expanduser()
    files = read_run(folder)
    if prompts:
        with _leaving_no_trace():
            return ask_models(folder, files, prompts, reporter or LogReporter())
    if files.comparison is None:
        raise RunError(f"the run in {folder} recorded no answers: give prompts.")
    return files.comparison


@dataclass(frozen=True, slots=True)
class CompletionScore:
    """What a model thinks of one completion, in nats.

    logp: log pi(y|x), the sum over its tokens, the end-of-sequence token among them.
    token_ids, token_logps: its tokens, and the log-probability of each given all before it.
    """

    logp: float
    token_ids: tuple[int, ...]
    token_logps: tuple[float, ...]


def score(
    model: Model,
    prompts: Sequence[str | Sequence[Mapping[str, object]]],
    completions: Sequence[str | Sequence[Mapping[str, object]]],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    precision: Precision = "float32",
    token_budget: int = TOKENS_AT_ONCE,
) -> list[CompletionScore]:
    """Log-probabilities of given completions, scored as training scores them.

    Args:
        model: a name, a folder, or a loaded model, which needs its `tokenizer` and is left as it is. Weights of a
            narrower type are float32 while it scores, as in training.
        prompts, completions: one completion for each prompt: both verbatim text, or both lists of messages
            (`{"role": ..., "content": ...}`) for the model's chat template.
        precision: of the arithmetic; `auto` as in training.
        token_budget: most columns in one forward pass.

    Raises:
        DataError: a prompt or completion cannot be used, or is longer than the model takes: nothing is cut.
        ModelError: the model cannot be had.
    """
    if isinstance(prompts, str) or isinstance(completions, str):
        raise DataError("prompts and completions are lists: put a single one into a list.")
    if len(prompts) != len(completions):
        raise DataError(f"there are {len(prompts)} prompts and {len(completions)} completions: give one for each.")
    if not prompts:
        return []
    with _leaving_no_trace():
        scorer, encoder = _scorer(model, tokenizer)
    examples = [
        _example(number, prompt, completion)
        for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True), start=1)
    ]
    tokenized = encoder(examples)
    if tokenized.dropped:
        first = tokenized.dropped[0]
        raise DataError(f"{first.id}: {first.reason} ({first.detail}). {len(tokenized.dropped)} in all.")
    columns = TokenColumns.of(tokenized.examples)
    was_training = scorer.model.training
    scorer.model.eval()
    try:
        arithmetic, _ = choose_precision(precision, scorer.device)
        with in_float32(scorer.model):
            values = score_columns(scorer, columns, arithmetic, token_budget)
    finally:
        scorer.model.train(was_training)
    parts = np.split(values, columns.scored_starts[1:-1])
    return [
        CompletionScore(float(logps.sum()), tuple(one.ids[one.first_scored :].tolist()), tuple(logps.tolist()))
        for one, logps in zip((columns.sequence(n) for n in range(columns.sequences)), parts, strict=True)
    ]


@contextmanager
def _leaving_no_trace() -> Iterator[None]:
    """Within, the libraries' own bars are off; afterwards they, and torch's random generators, are as they were."""
    bars = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        # Every device, as without the argument, which would warn where there are several.
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        if bars:
            enable_progress_bar()


def _example(number: int, prompt: object, completion: object) -> Example:
    """A prompt with its completion; an answer to a chat may be text, which is then what the assistant says."""
    name, fields = f"completion {number}", Fields({})
    try:
        if isinstance(prompt, str):
            if not isinstance(completion, str):
                raise RowError(UNREADABLE, "its prompt is text, so it must be text too")
            return Example(name, prompt, (completion,), (CHOSEN,))
        said = (Message("assistant", completion),) if isinstance(completion, str) else None
        return Example(
            name, as_chat(prompt, "the prompt", fields), (said or as_chat(completion, "it", fields),), (CHOSEN,)
        )
    except RowError as problem:
        raise DataError(f"{name}: {problem.reason} ({problem.detail}).") from problem


def _scorer(model: Model, tokenizer: PreTrainedTokenizerBase | None) -> tuple[Scorer, ExampleTokenizer]:
    """A model that scores, and its tokenizer, which neither cuts nor leaves out."""
    if isinstance(model, PreTrainedModel):
        fast = own_tokenizer(tokenizer)
        facts = facts_of(model.config, model.generation_config, fast)
        scorer = Scorer(model)
    else:
        source = find_model(name_of(model, None), HubConfig())
        fast = load_tokenizer(source) if tokenizer is None else fast_tokenizer(tokenizer)
        facts = model_facts(source, fast)
        scorer = Scorer(load_model(source, choose_device("auto")))
    data = DataConfig(max_length=facts.positions or np.iinfo(np.int32).max)
    return scorer, ExampleTokenizer(fast, data, facts.terminators)


def _settings(config: Settings | None) -> Config:
    if config is None:
        return Config()
    if isinstance(config, str | Path):
        return load_config(Path(config).expanduser())
    return config if isinstance(config, Config) else config_from_dict(config)


def _with_model(config: Config, model: Model | None, tokenizer: PreTrainedTokenizerBase | None) -> Config:
    if model is None and tokenizer is None:
        return config
    return replace(config, model=replace(config.model, path=name_of(model, tokenizer)))


def _with_data(config: Config, train: str | Path | Rows | None, eval: str | Path | Rows | None) -> tuple[Config, Given]:
    """The settings with the data that is named, and the rows that are given."""
    data = config.data
    if train is not None:
        data = replace(data, train=_name(train))
    if eval is not None:
        data = replace(data, eval=_name(eval))
    return replace(config, data=data), Given(_rows(train), _rows(eval))


def _name(source: str | Path | Rows) -> str:
    return str(source) if isinstance(source, str | Path) else given_name(source)


def _rows(source: str | Path | Rows | None) -> Rows | None:
    return None if isinstance(source, str | Path) else source
