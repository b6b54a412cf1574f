"""From settings to tokenized training and held-out pairs, with the data report: the data room's front door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tiltlm import demo
from tiltlm.config import Config
from tiltlm.data.inspection import data_report
from tiltlm.data.loading import LoadedPairs, Role, load_pairs
from tiltlm.data.splitting import prompt_key, split_by_prompt, subsample, without_leaks
from tiltlm.data.tokenization import PairTokenizer, RenderedPair
from tiltlm.errors import DataError
from tiltlm.records import DroppedPair, PreferencePair, TokenizedPair
from tiltlm.runs.records import DataReport

DEMO = "demo"


@dataclass(frozen=True, slots=True)
class ReadPairs:
    """Pairs as read and split, before tokenization."""

    train: list[PreferencePair]
    held_out: list[PreferencePair]
    loaded: list[LoadedPairs]
    dropped: list[DroppedPair]


@dataclass(frozen=True, slots=True)
class PreparedData:
    """What training needs of the data. `eval_rendered[i]` is the text of `eval[i]`."""

    train: list[TokenizedPair]
    eval: list[TokenizedPair]
    eval_rendered: list[RenderedPair]
    report: DataReport


def read_data(config: Config) -> ReadPairs:
    """Reads training and held-out pairs, keeps their prompts apart, and draws as many as are wanted.

    Raises:
        DataError: data is missing, in no known format, or nothing usable is left.
        ConfigError: a setting has no effect on this data.
    """
    data, seed = config.data, config.run.seed
    loaded = [_load(config, data.train, "train")]
    dropped: list[DroppedPair] = []
    if data.eval is None:
        train, held_out = split_by_prompt(loaded[0].pairs, data.eval_fraction, seed)
    else:
        loaded.append(_load(config, data.eval, "eval"))
        held_out = loaded[1].pairs
        train, dropped = without_leaks(loaded[0].pairs, held_out)
    return ReadPairs(
        subsample(train, data.max_train_pairs, seed), subsample(held_out, data.max_eval_pairs, seed), loaded, dropped
    )


def _load(config: Config, name: str, role: Role) -> LoadedPairs:
    if name != DEMO:
        return load_pairs(name, config.data, config.hub, role)
    loaded = load_pairs(demo.TRAIN if role == "train" else demo.EVAL, config.data, config.hub, role)
    return replace(loaded, source=replace(loaded.source, name=DEMO))


def prepare_data(read: ReadPairs, tokenizer: PairTokenizer, advance: Callable[[int], None]) -> PreparedData:
    """Tokenizes what was read and writes the account of it.

    Raises:
        DataError: no pair is left for training or for evaluation.
    """
    train, held_out = tokenizer(read.train, advance), tokenizer(read.held_out, advance)
    for tokenized, what in ((train, "training"), (held_out, "evaluation")):
        if not tokenized.pairs:
            first = tokenized.dropped[0]
            raise DataError(
                f"no pair is left for {what} after tokenization; the first of {len(tokenized.dropped)} dropped is "
                f"{first.id}: {first.reason} ({first.detail})."
            )
    report = data_report(read.loaded, train, held_out, read.dropped, _notes(read, tokenizer))
    return PreparedData(train.pairs, held_out.pairs, held_out.rendered, report)


def _notes(read: ReadPairs, tokenizer: PairTokenizer) -> list[str]:
    notes = []
    available = len(read.loaded[0].pairs) + sum(len(part.pairs) for part in read.loaded[1:])
    unused = available - len(read.train) - len(read.held_out) - len(read.dropped)
    if unused:
        notes.append(f"{unused} usable pairs are left out by data.max_train_pairs or data.max_eval_pairs.")
    if len(read.loaded) == 1:
        held_out = len({prompt_key(pair.prompt) for pair in read.held_out})
        notes.append(f"The held-out pairs are those of {held_out} prompts of the training data, drawn by the seed.")
    chat = any(not isinstance(pair.prompt, str) for pair in read.train)
    if chat and tokenizer.tokenizer.chat_template is None:
        notes.append("The model has no chat template: chats are written as `\\n\\nHuman: ...\\n\\nAssistant: ...`.")
    end = {
        "append": "Every completion ends with one end-of-sequence token.",
        "as-is": "No end-of-sequence token is added.",
    }
    notes.append(end[tokenizer.config.eos])
    return notes
