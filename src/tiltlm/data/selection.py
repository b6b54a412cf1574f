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
from tiltlm.data.tokens.mismatched import with_mismatched
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.data.tokens.token_notes import notes_on_tokens
from tiltlm.data.tokens.tokenization import ExampleTokenizer, Tokenized, TokenizedBuilder
from tiltlm.errors import DataError
from tiltlm.objectives.interface import NOUNS, Needs
from tiltlm.runs.data_account import DroppedRow, Quality, Remark

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ReadData:
    """Examples as read, before it is known which of them fit.

    train: those that may be trained on; their prompts are not in `held_out`.
    held_out: the held-out data; empty where some of `train` is to be held out.
    """

    train: list[Example]
    held_out: list[Example]
    loaded: list[LoadedExamples]
    dropped: list[DroppedRow]
    data: DataConfig
    seed: int
    needs: Needs

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


def select(read: ReadData, tokenizer: ExampleTokenizer, advance: Advance) -> tuple[Selection, str | None]:
    """Tokenizes what was read and draws from what fits as many examples as are wanted.

    Returns:
        The selection, and why it is not enough to train on; None if it is.
    """
    parts, dropped, problem = _tokenized(read, tokenizer, advance)
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
    columns = (train.examples, held_out.examples)
    if read.needs.mismatched and problem is None:
        try:
            columns = (
                with_mismatched(train.examples, read.data.max_length, "training"),
                with_mismatched(held_out.examples, read.data.max_length, "held-out"),
            )
        except DataError as error:
            problem = str(error)
    return Selection(*columns, account), problem


def _part(split: str, read: Sequence[Example], found: Tokenized) -> Part:
    return Part(split, [read[place] for place in found.places.tolist()], found.examples, found.checked["prompt"])


def _tokenized(
    read: ReadData, tokenizer: ExampleTokenizer, advance: Advance
) -> tuple[tuple[Tokenized, Tokenized], Sequence[DroppedRow], str | None]:
    """Training and held-out examples, what else is dropped, and why there is no split if there is none."""
    data = read.data
    if read.held_out:
        train, held_out = (
            _drawn(examples, limit, read.seed, tokenizer, advance)
            for examples, limit in ((read.train, data.max_train_pairs), (read.held_out, data.max_eval_pairs))
        )
        return (train, held_out), (), None
    return _split(read, tokenizer, advance)


def _split(
    read: ReadData, tokenizer: ExampleTokenizer, advance: Advance
) -> tuple[tuple[Tokenized, Tokenized], Sequence[DroppedRow], str | None]:
    """Training and held-out examples of one source."""
    data, builder = read.data, TokenizedBuilder()

    def fitting(numbers: list[int]) -> set[int]:
        before = len(builder.places)
        tokenizer.tokenize(read.train, numbers, builder, advance)
        return set(builder.places[before:])

    try:
        limits = (data.max_train_pairs, data.max_eval_pairs)
        drawn = draw_split(read.train, data.eval_fraction, read.seed, limits, fitting)
    except DataError as error:
        known = builder.tokenized()
        reason = str(error) if len(known.examples) else None
        return (replace(known, dropped=()), known.take([])), known.dropped, reason
    known = builder.tokenized()
    order = np.argsort(known.places)
    train, held_out = (known.take(order[np.searchsorted(known.places, part, sorter=order)]) for part in drawn)
    return (train, held_out), known.dropped, None


def _drawn(
    examples: Sequence[Example], limit: int | None, seed: int, tokenizer: ExampleTokenizer, advance: Advance
) -> Tokenized:
    """At most `limit` examples that fit, in their given order. No more are tokenized than it takes to find them."""
    if limit is None or len(examples) <= limit:
        return tokenizer(examples, advance)
    order, builder, start = drawing_order(examples, seed), TokenizedBuilder(), 0
    while start < len(order) and len(builder.places) < limit:
        portion = order[start : start + limit - len(builder.places)]
        start += len(portion)
        tokenizer.tokenize(examples, portion, builder, advance)
    found = builder.tokenized()
    return replace(found.take(np.argsort(found.places)), dropped=found.dropped)


def _notes(read: ReadData, train: Tokenized, held_out: Tokenized, lost: int, tokenizer: ExampleTokenizer) -> list[str]:
    notes = []
    used = len(train.examples) + len(held_out.examples)
    unused = len(read.train) + len(read.held_out) - used - lost
    if unused:
        further = f"1 further {read.noun} is" if unused == 1 else f"{unused} further {read.noun}s are"
        notes.append(f"{further} left out by data.max_train_pairs or data.max_eval_pairs.")
    if not read.held_out and len(held_out.examples):
        prompts = len({example_key(read.train[place]) for place in held_out.places.tolist()})
        of = "1 prompt" if prompts == 1 else f"{prompts} prompts"
        notes.append(f"The held-out {read.noun}s are those of {of} of the training data, drawn by the seed.")
    forms = [{isinstance(example.prompt, str) for example in part} for part in (read.train, read.held_out)]
    if not forms[0] & forms[1] and read.held_out:
        trained, asked = ("text as it stands" if True in form else "chats" for form in forms)
        notes.append(
            f"The training data are {trained} and the held-out data {asked}: the figures are of another form than what "
            "is trained, and training prompts that are held out, too, are not left out."
        )
    end = {
        "append": "Every completion ends with one end-of-sequence token.",
        "as-is": "No end-of-sequence token is added.",
    }
    if tokenizer.config.long_completions == "truncate" and tokenizer.config.eos == "append":
        end["append"] = "Every completion that is not cut ends with one end-of-sequence token."
    notes.append(end[tokenizer.config.eos])
    return notes
