"""Which of the examples that were read are trained on and which are held out, tokenized, with what is told of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tiltlm.config import DataConfig
from tiltlm.data.conversion import LoadedExamples
from tiltlm.data.examples import Example
from tiltlm.data.quality.examination import examined
from tiltlm.data.quality.parts import Part
from tiltlm.data.splitting import draw_split, drawing_order, example_key
from tiltlm.data.stored_examples import some_of
from tiltlm.data.tokens.mismatched import with_mismatched
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.data.tokens.token_notes import notes_on_tokens
from tiltlm.data.tokens.token_parts import Tokenized, TokenParts
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.errors import DataError
from tiltlm.objectives.interface import NOUNS, Needs
from tiltlm.runs.data_account import DroppedRow, Quality, Remark

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ReadData:
    """Examples as read, before it is known which of them fit.

    train: those that may be trained on; their prompts are not in `held_out`.
    held_out: the held-out data; empty where some of `train` is to be held out.
    times: int64, how often each of `train` is trained on in a pass; None: once each.
    """

    train: Sequence[Example]
    held_out: Sequence[Example]
    loaded: list[LoadedExamples]
    dropped: list[DroppedRow]
    data: DataConfig
    seed: int
    needs: Needs
    times: np.ndarray | None = None

    @property
    def noun(self) -> str:
        """What an example is called in messages."""
        return NOUNS[self.needs.unit]


@dataclass(frozen=True, slots=True)
class Account:
    """What is told of a selection besides its tokens.

    train_prompts, eval_prompts: how many different ones there are.
    eval_places: the numbers of the held-out examples among those that were read to be held out, or to be trained on
        where some of these are held out.
    dropped: examples that do not fit. notes, remarks, quality: see the data report.
    """

    train_prompts: int
    eval_prompts: int
    eval_places: tuple[int, ...]
    dropped: tuple[DroppedRow, ...]
    notes: tuple[str, ...]
    remarks: tuple[Remark, ...]
    quality: Quality


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Examples chosen for training and evaluation, and their account."""

    train: TokenColumns
    eval: TokenColumns
    account: Account


def select(
    read: ReadData, tokenizer: ExampleTokenizer, advance: Advance, kept: TokenParts | None = None
) -> tuple[Selection, str | None]:
    """Tokenizes what was read and draws from what fits as many examples as are wanted.

    kept: where tokens of large data are kept while they are made, and found again.

    Returns:
        The selection, and why it is not enough to train on; None if it is.
    """
    parts, dropped, problem = _tokenized(read, _Tokenizing(tokenizer, advance, kept))
    train, held_out = parts
    for part, what in ((train, "training"), (held_out, "evaluation")):
        if problem is None and not len(part.examples):
            those = part.dropped or dropped
            problem = (
                f"no {read.noun} is left for {what} after tokenization; the first of {len(those)} dropped is "
                f"{those[0].id}: {those[0].reason} ({those[0].detail})."
            )
    notes, remarks = notes_on_tokens(parts, tokenizer, read.noun)
    dropped = [*dropped, *train.dropped, *held_out.dropped]
    account = Account(
        train_prompts=len(np.unique(train.checked["prompt"])),
        eval_prompts=len(np.unique(held_out.checked["prompt"])),
        eval_places=tuple(held_out.places.tolist()),
        dropped=tuple(dropped),
        notes=(*_notes(read, train, held_out, len(dropped), tokenizer), *notes),
        remarks=tuple(remarks),
        quality=examined(
            _part("train", read.train, train),
            _part("eval", read.held_out or read.train, held_out),
            tokenizer,
            read.needs.unit,
            read.noun,
        ),
    )
    columns = (_as_often_as_wanted(train, read.times), held_out.examples)
    if read.needs.mismatched and problem is None:
        try:
            columns = (
                with_mismatched(columns[0], read.data.max_length, "training"),
                with_mismatched(columns[1], read.data.max_length, "held-out"),
            )
        except DataError as error:
            problem = str(error)
    return Selection(*columns, account), problem


def _as_often_as_wanted(train: Tokenized, times: np.ndarray | None) -> TokenColumns:
    if times is None or (times == 1).all():
        return train.examples
    return train.examples.take(np.repeat(np.arange(len(train.examples)), times[train.places]))


def _part(split: str, read: Sequence[Example], found: Tokenized) -> Part:
    return Part(split, some_of(read, found.places), found.examples, found.checked["prompt"])


@dataclass(frozen=True, slots=True)
class _Tokenizing:
    """What turns examples into tokens, and is told how far it is."""

    tokenizer: ExampleTokenizer
    advance: Advance
    kept: TokenParts | None

    def of_split(self, split: str) -> _Tokenizing:
        """The same for examples that are numbered by themselves."""
        return replace(self, kept=self.kept and self.kept.of_split(split))

    def __call__(self, examples: Sequence[Example], numbers: np.ndarray) -> list[Tokenized]:
        return self.tokenizer.tokenize(examples, numbers, self.advance, self.kept)


def _tokenized(
    read: ReadData, tokenize: _Tokenizing
) -> tuple[tuple[Tokenized, Tokenized], Sequence[DroppedRow], str | None]:
    """Training and held-out examples, what else is dropped, and why there is no split if there is none."""
    data = read.data
    if read.held_out:
        train, held_out = (
            _drawn(examples, limit, read.seed, tokenize.of_split(split))
            for split, examples, limit in (
                ("train", read.train, data.max_train_pairs),
                ("eval", read.held_out, data.max_eval_pairs),
            )
        )
        return (train, held_out), (), None
    return _split(read, tokenize)


def _split(
    read: ReadData, tokenize: _Tokenizing
) -> tuple[tuple[Tokenized, Tokenized], Sequence[DroppedRow], str | None]:
    """Training and held-out examples of one source."""
    data, parts = read.data, list[Tokenized]()

    def fitting(numbers: np.ndarray) -> np.ndarray:
        new = tokenize(read.train, numbers)
        parts.extend(new)
        return np.isin(numbers, np.concatenate([part.places for part in new]))

    try:
        limits = (data.max_train_pairs, data.max_eval_pairs)
        drawn = draw_split(read.train, data.eval_fraction, read.seed, limits, fitting)
    except DataError as error:
        known = Tokenized.joined(parts)
        reason = str(error) if len(known.examples) else None
        return (replace(known, dropped=()), known.take([])), known.dropped, reason
    known = Tokenized.joined(parts)
    order = np.argsort(known.places)
    train, held_out = (known.take(order[np.searchsorted(known.places, part, sorter=order)]) for part in drawn)
    return (train, held_out), known.dropped, None


def _drawn(examples: Sequence[Example], limit: int | None, seed: int, tokenize: _Tokenizing) -> Tokenized:
    """At most `limit` examples that fit, in their given order. No more are tokenized than it takes to find them."""
    if limit is None or len(examples) <= limit:
        return Tokenized.joined(tokenize(examples, np.arange(len(examples))))
    order, parts, start, found = drawing_order(examples, seed), list[Tokenized](), 0, 0
    while start < len(order) and found < limit:
        portion = order[start : start + limit - found]
        start += len(portion)
        parts += (new := tokenize(examples, portion))
        found += sum(len(part.examples) for part in new)
    drawn = Tokenized.joined(parts)
    return replace(drawn.take(np.argsort(drawn.places)), dropped=drawn.dropped)


def _notes(read: ReadData, train: Tokenized, held_out: Tokenized, lost: int, tokenizer: ExampleTokenizer) -> list[str]:
    notes = []
    used = len(train.examples) + len(held_out.examples)
    unused = len(read.train) + len(read.held_out) - used - lost
    if unused:
        further = f"1 further {read.noun} is" if unused == 1 else f"{unused} further {read.noun}s are"
        notes.append(f"{further} left out by data.max_train_pairs or data.max_eval_pairs.")
    if not read.held_out and len(held_out.examples):
        prompts = len({example_key(example) for example in some_of(read.train, held_out.places)})
        of = "1 prompt" if prompts == 1 else f"{prompts} prompts"
        notes.append(f"The held-out {read.noun}s are those of {of} of the training data, drawn by the seed.")
    forms = [
        frozenset[bool]().union(*(part.chats for part in read.loaded if part.source.role == role))
        for role in ("train", "eval")
    ]
    if not forms[0] & forms[1] and read.held_out:
        trained, asked = ("text as it stands" if False in form else "chats" for form in forms)
        notes.append(
            f"The training data are {trained} and the held-out data {asked}: the figures are of another form than what "
            "is trained, and training prompts that are held out, too, are not left out."
        )
    return [*notes, *_end_notes(train, held_out, tokenizer)]


def _end_notes(train: Tokenized, held_out: Tokenized, tokenizer: ExampleTokenizer) -> list[str]:
    """How completions end."""
    every = [part.examples.ended for part in (train, held_out)]
    unended, all_of_them = sum(int((part == 0).sum()) for part in every), sum(map(len, every))
    cut = tokenizer.config.long_completions == "truncate" or unended > 0
    end = {
        "append": f"Every completion {'that is not cut ' * cut}ends with one end-of-sequence token.",
        "as-is": "No end-of-sequence token is added.",
    }
    notes = [end[tokenizer.config.eos]]
    if unended:
        notes.append(
            f"{unended} of {all_of_them} completions were cut before they ended (`ended`, `chosen_ended` or "
            "`rejected_ended` is false): no end-of-sequence token follows them, nor what a chat template writes after "
            "an answer."
        )
    return notes
