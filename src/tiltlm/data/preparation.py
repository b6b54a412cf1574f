"""From settings to tokenized training and held-out examples, with the data report: the data room's front door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from tiltlm import demo
from tiltlm.config import Config
from tiltlm.data.conversion import Called, GivenRows, LoadedExamples, Role, load_examples
from tiltlm.data.examples import Example
from tiltlm.data.inspection import data_report
from tiltlm.data.mixtures import Mixture, mixture
from tiltlm.data.selection import Advance, ReadData, select
from tiltlm.data.splitting import without_leaks
from tiltlm.data.stored_examples import some_of
from tiltlm.data.token_cache import TokenCache, cache_key
from tiltlm.data.tokens.rendering import RenderedExample
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.errors import ConfigError, DataError
from tiltlm.objectives.interface import Needs
from tiltlm.runs.data_account import DataReport, DroppedRow

DEMO = "demo"
PAIRS = Needs()


class RenderedExamples(Sequence[RenderedExample]):
    """Examples as text, rendered when they are asked for."""

    def __init__(self, examples: Sequence[Example], tokenizer: ExampleTokenizer) -> None:
        self._examples = examples
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, number: int) -> RenderedExample: ...
    @overload
    def __getitem__(self, number: slice) -> RenderedExamples: ...
    def __getitem__(self, number: int | slice) -> RenderedExample | RenderedExamples:
        if isinstance(number, slice):
            return RenderedExamples(self._examples[number], self._tokenizer)
        (outcome,) = self._tokenizer.outcomes([self._examples[number]])
        # It was tokenized before, so it can be again.
        assert not isinstance(outcome, DroppedRow)
        return outcome[1]


@dataclass(frozen=True, slots=True)
class PreparedData:
    """What training needs of the data. `eval_rendered[i]` is the text of `eval[i]`."""

    train: TokenColumns
    eval: TokenColumns
    eval_rendered: Sequence[RenderedExample]
    report: DataReport


def read_data(
    config: Config, needs: Needs = PAIRS, train: GivenRows | None = None, eval: GivenRows | None = None
) -> ReadData:
    """Reads training and held-out examples and keeps their prompts apart.

    Args:
        needs: those of the objective: whether it learns from pairs alone, or from single completions.
        train, eval: rows in memory, in place of what data.train and data.eval name.

    Raises:
        DataError: data is missing, in no known format, or nothing usable is left.
        ConfigError: a setting has no effect on this data.
    """
    data, seed = config.data, config.run.seed
    if train is not None and data.source:
        raise ConfigError(
            "data.source has no effect on rows in memory, which stand in place of all sources: remove it."
        )
    if data.source:
        mixed = mixture(
            data, lambda one, called: _load(replace(config, data=one), one.train, "train", needs, called), seed
        )
    else:
        mixed = Mixture.alone(_load(config, data.train if train is None else train, "train", needs))
    held_out = data.eval if eval is None else eval
    if held_out is None:
        return ReadData(mixed.examples, [], mixed.loaded, [], data, seed, needs, mixed.times)
    loaded = _load(config, held_out, "eval", needs)
    kept, dropped = without_leaks(mixed.examples, loaded.examples)
    mixed = mixed.take(kept) if dropped else mixed
    return ReadData(mixed.examples, loaded.examples, [*mixed.loaded, loaded], dropped, data, seed, needs, mixed.times)


def _load(
    config: Config, source: str | GivenRows, role: Role, needs: Needs, called: Called | None = None
) -> LoadedExamples:
    given = source
    if isinstance(source, str) and source == DEMO:
        given = str(demo.TRAIN if role == "train" else demo.EVAL)
    loaded = load_examples(given, config.data, config.hub, role, needs.unit, needs.scores, called)
    return replace(loaded, source=replace(loaded.source, name=DEMO)) if given is not source else loaded


def prepare_data(
    read: ReadData, tokenizer: ExampleTokenizer, advance: Advance, cache: Path | None = None
) -> PreparedData:
    """Tokenizes what was read, draws from what fits as many examples as are wanted, and writes the account of it.

    cache: a folder in which the tokens are kept and found again by content, and from which they are mapped; None
        leaves them in memory.

    Raises:
        DataError: no example is left for training or for evaluation.
    """
    data, problem = examine_data(read, tokenizer, advance, cache)
    if problem is not None:
        raise DataError(problem)
    return data


def examine_data(
    read: ReadData, tokenizer: ExampleTokenizer, advance: Advance, cache: Path | None = None
) -> tuple[PreparedData, str | None]:
    """As `prepare_data`, for data that need not be enough to train on: also says why it is not, or None if it is.

    Raises:
        ConfigError: there are chats, and the model's template cannot be used.
    """
    if any(True in part.chats for part in read.loaded):
        tokenizer.template.require_works()
    tokens = TokenCache(cache) if cache is not None else None
    key = cache_key(read, tokenizer) if tokens is not None else ""
    selection = tokens.get(key) if tokens is not None else None
    problem = None
    if selection is None:
        kept = tokens.unfinished(key) if tokens is not None else None
        selection, problem = select(read, tokenizer, advance, kept)
        if tokens is not None and problem is None:
            selection = tokens.put(key, selection)
        if kept is not None:
            kept.clear()
    else:
        advance(len(read.train) + len(read.held_out))
    report = data_report(
        read,
        selection,
        lambda ids: str(tokenizer.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)),
    )
    source = read.held_out or read.train
    asked = some_of(source, np.array(selection.account.eval_places, dtype=np.int64))
    return PreparedData(selection.train, selection.eval, RenderedExamples(asked, tokenizer), report), problem
