"""From settings to tokenized training and held-out examples, with the data report: the data room's front door."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tiltlm import demo
from tiltlm.config import Config, DataConfig
from tiltlm.data.conversion import GivenRows, LoadedExamples, Role, load_examples
from tiltlm.data.examples import Example
from tiltlm.data.inspection import data_report
from tiltlm.data.splitting import draw_split, drawing_order, example_key, without_leaks
from tiltlm.data.tokens.mismatched import with_mismatched
from tiltlm.data.tokens.rendering import RenderedExample
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.data.tokens.token_notes import notes_on_tokens
from tiltlm.data.tokens.tokenization import ExampleTokenizer, Tokenized
from tiltlm.errors import DataError
from tiltlm.objectives.interface import Needs, Unit
from tiltlm.runs.data_account import DataReport, DroppedRow

DEMO = "demo"
PAIRS = Needs()
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
        return "pair" if self.needs.unit == "pair" else "example"


@dataclass(frozen=True, slots=True)
class PreparedData:
    """What training needs of the data. `eval_rendered[i]` is the text of `eval[i]`."""

    train: TokenColumns
    eval: TokenColumns
    eval_rendered: list[RenderedExample]
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
    loaded = [_load(config, data.train if train is None else train, "train", needs.unit)]
    held_out = data.eval if eval is None else eval
    if held_out is None:
        return ReadData(loaded[0].examples, [], loaded, [], data, seed, needs)
    loaded.append(_load(config, held_out, "eval", needs.unit))
    kept, dropped = without_leaks(loaded[0].examples, loaded[1].examples)
    return ReadData(kept, loaded[1].examples, loaded, dropped, data, seed, needs)


def _load(config: Config, source: str | GivenRows, role: Role, unit: Unit) -> LoadedExamples:
    if not isinstance(source, str) or source != DEMO:
        return load_examples(source, config.data, config.hub, role, unit)
    loaded = load_examples(demo.TRAIN if role == "train" else demo.EVAL, config.data, config.hub, role, unit)
    return replace(loaded, source=replace(loaded.source, name=DEMO))


def prepare_data(read: ReadData, tokenizer: ExampleTokenizer, advance: Advance) -> PreparedData:
    """Tokenizes what was read, draws from what fits as many examples as are wanted, and writes the account of it.

    Raises:
        DataError: no example is left for training or for evaluation.
    """
    data, problem = examine_data(read, tokenizer, advance)
    if problem is not None:
        raise DataError(problem)
    return data


def examine_data(read: ReadData, tokenizer: ExampleTokenizer, advance: Advance) -> tuple[PreparedData, str | None]:
    """As `prepare_data`, for data that need not be enough to train on: also says why it is not, or None if it is."""
    train, held_out, dropped, problem = _tokenized(read, tokenizer, advance)
    for part, what in ((train, "training"), (held_out, "evaluation")):
        if problem is None and not part.examples:
            first = dropped[0] if not part.dropped else part.dropped[0]
            count = len(part.dropped) or len(dropped)
            problem = (
                f"no {read.noun} is left for {what} after tokenization; the first of {count} dropped is {first.id}: "
                f"{first.reason} ({first.detail})."
            )
    notes, remarks = notes_on_tokens(train, held_out, tokenizer, read.noun)
    report = data_report(
        read.loaded,
        train,
        held_out if held_out.examples or read.held_out else None,
        [*read.dropped, *dropped],
        [*_notes(read, train, held_out, dropped, tokenizer), *notes],
        remarks,
        lambda ids: str(tokenizer.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)),
    )
    columns, held_out_columns = TokenColumns.of(train.examples), TokenColumns.of(held_out.examples)
    if read.needs.mismatched and problem is None:
        columns = with_mismatched(columns, read.data.max_length, "training")
        held_out_columns = with_mismatched(held_out_columns, read.data.max_length, "held-out")
    return PreparedData(columns, held_out_columns, held_out.rendered, report), problem


def _tokenized(
    read: ReadData, tokenizer: ExampleTokenizer, advance: Advance
) -> tuple[Tokenized, Tokenized, list[DroppedRow], str | None]:
    """Training and held-out examples, what else is dropped, and why there is no split if there is none."""
    data = read.data
    if read.held_out:
        train = _drawn(read.train, data.max_train_pairs, read.seed, tokenizer, advance)
        return train, _drawn(read.held_out, data.max_eval_pairs, read.seed, tokenizer, advance), [], None
    return _split(read, tokenizer, advance)


def _split(
    read: ReadData, tokenizer: ExampleTokenizer, advance: Advance
) -> tuple[Tokenized, Tokenized, list[DroppedRow], str | None]:
    """Training and held-out examples of one source."""
    data, known = read.data, Tokenized()

    def fitting(numbers: list[int]) -> set[int]:
        part = tokenizer([read.train[number] for number in numbers], advance)
        places = [numbers[place] for place in part.places]
        known.extend(replace(part, places=places))
        return set(places)

    try:
        limits = (data.max_train_pairs, data.max_eval_pairs)
        drawn = draw_split(read.train, data.eval_fraction, read.seed, limits, fitting)
    except DataError as error:
        return (
            known.take(range(len(known.examples))),
            Tokenized(),
            known.dropped,
            str(error) if known.examples else None,
        )
    number_of = {place: number for number, place in enumerate(known.places)}
    train, held_out = (known.take([number_of[place] for place in part]) for part in drawn)
    return train, held_out, known.dropped, None


def _drawn(
    examples: Sequence[Example], limit: int | None, seed: int, tokenizer: ExampleTokenizer, advance: Advance
) -> Tokenized:
    """At most `limit` examples that fit, in their given order. No more are tokenized than it takes to find them."""
    if limit is None or len(examples) <= limit:
        return tokenizer(examples, advance)
    order = drawing_order(examples, seed)
    found = Tokenized()
    start = 0
    while start < len(order) and len(found.examples) < limit:
        portion = order[start : start + limit - len(found.examples)]
        start += len(portion)
        part = tokenizer([examples[number] for number in portion], advance)
        found.extend(replace(part, places=[portion[place] for place in part.places]))
    in_order = found.take(sorted(range(len(found.places)), key=found.places.__getitem__))
    return replace(in_order, dropped=found.dropped)


def _notes(
    read: ReadData, train: Tokenized, held_out: Tokenized, dropped: Sequence[DroppedRow], tokenizer: ExampleTokenizer
) -> list[str]:
    notes = []
    used = len(train.examples) + len(held_out.examples)
    lost = len(train.dropped) + len(held_out.dropped) + len(dropped)
    unused = len(read.train) + len(read.held_out) - used - lost
    if unused:
        further = f"1 further {read.noun} is" if unused == 1 else f"{unused} further {read.noun}s are"
        notes.append(f"{further} left out by data.max_train_pairs or data.max_eval_pairs.")
    if not read.held_out and held_out.examples:
        prompts = len({example_key(read.train[place]) for place in held_out.places})
        of = "1 prompt" if prompts == 1 else f"{prompts} prompts"
        notes.append(f"The held-out {read.noun}s are those of {of} of the training data, drawn by the seed.")
    forms = [{isinstance(example.prompt, str) for example in part} for part in (read.train, read.held_out)]
    if not forms[0] & forms[1] and read.held_out:
        trained, asked = ("text as it stands" if True in form else "chats" for form in forms)
        notes.append(
            f"The training data are {trained} and the held-out data {asked}: the figures are of another form than what "
            "is trained, and prompts that are in both are not found."
        )
    end = {
        "append": "Every completion ends with one end-of-sequence token.",
        "as-is": "No end-of-sequence token is added.",
    }
    if tokenizer.config.long_completions == "truncate" and tokenizer.config.eos == "append":
        end["append"] = "Every completion that is not cut ends with one end-of-sequence token."
    notes.append(end[tokenizer.config.eos])
    return notes
