"""Whether reading an input loses nothing and guesses nothing. For tests and the fuzzer of the readers."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from malformed_files import Case
from malformed_rows import marks
from tiny_tokenizers import CHAT_TEMPLATE, byte_level, pair_tokenizer, word_level

from tiltlm.config import Config, DataConfig, LossConfig, RunConfig
from tiltlm.data.examples import Example
from tiltlm.data.preparation import PreparedData, examine_data, read_data
from tiltlm.data.row_names import row_of
from tiltlm.data.selection import ReadData
from tiltlm.errors import TiltlmError
from tiltlm.objectives import OBJECTIVES
from tiltlm.runs.data_account import DataReport
from tiltlm.runs.schema import from_json, versioned

_REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT_TEMPLATE
TOKENIZERS = (
    byte_level(),
    byte_level(chat_template=CHAT_TEMPLATE),
    byte_level(chat_template=_REFUSING, bos=True),
    word_level("yes", "no", "ask", "good"),
)
USED, TOO_LITTLE, REFUSED = "used", "too little to train on", "refused"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How reading ended, and what became of the rows; 0 where the whole input was refused with a message."""

    ended: str
    rows: int = 0
    used: int = 0
    dropped: int = 0
    left_out: int = 0


class Fault(AssertionError):  # noqa: N818 - what a reader did wrong
    """Reading did what it must never do."""


def read(case: Case, folder: Path, rng: random.Random) -> Outcome:
    """Writes an input, reads it as a run does, and says how it ended.

    Raises:
        Fault: an exception that is not for users, a message that does not name the input, a warning, a row that is
            neither used nor listed, an example that comes from no row.
    """
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    tokenizer = rng.choice(TOKENIZERS)
    settings: dict[str, Any] = {
        "train": str(folder / case.source) if case.given is None else "rows",
        "max_length": rng.choice([512, 512, 40, 12]),
        "long_completions": rng.choice(["drop", "truncate"]),
        "max_train_pairs": rng.choice([None, None, 2]),
        "max_eval_pairs": rng.choice([None, 1]),
    }
    needs = OBJECTIVES["kto" if case.unit == "completion" else "sigmoid"].needs
    data = DataConfig(**settings)
    config = Config(
        data=data,
        run=RunConfig(directory=str(folder)),
        loss=LossConfig("kto" if case.unit == "completion" else "sigmoid"),
    )
    with _no_warnings():
        try:
            found = read_data(config, needs, train=case.given)
        except TiltlmError as error:
            _require_named(str(error), case)
            return Outcome(REFUSED)
        prepared, problem = examine_data(found, pair_tokenizer(tokenizer, **settings), lambda done: None)
    _require_balance(found, prepared, data)
    _require_every_row(found, case)
    _require_origin(found.train, case)
    (source,) = prepared.report.sources
    counts = (source.rows_used or 0, source.rows_dropped or 0, source.rows_left_out or 0)
    return Outcome(USED if problem is None else TOO_LITTLE, source.rows, *counts)


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    if caught:
        raise Fault(f"a warning came through: {caught[0].category.__name__}: {caught[0].message}")


def _require_named(message: str, case: Case) -> None:
    names = {"row " if case.given is not None else case.source, *case.files, *(Path(name).name for name in case.files)}
    if case.source not in message and not any(name in message for name in names):
        raise Fault(f"the message names no file: {message[:300]}")


def _require_balance(found: ReadData, prepared: PreparedData, data: DataConfig) -> None:
    """Every row is used, listed or left out by a limit; counted again here, from the ids."""
    report = prepared.report
    (source,) = report.sources
    used = {row_of(name) for part in (prepared.train, prepared.eval) for name in part.names}
    listed = {row_of(drop.id) for drop in report.dropped.list}
    left_out = {row_of(example.id) for example in found.train} - used - listed
    if source.rows != len(used | listed | left_out):
        raise Fault(f"{source.rows} rows, and {len(used)} used, {len(listed)} listed, {len(left_out)} left out")
    stated = (source.rows_used, source.rows_dropped, source.rows_left_out)
    if stated != (len(used), len(listed - used), len(left_out)):
        raise Fault(f"the report says {stated}, and it is {(len(used), len(listed - used), len(left_out))}")
    if left_out and data.max_train_pairs is None and data.max_eval_pairs is None:
        raise Fault(f"{len(left_out)} rows are left out, and no limit is set")
    if any(not drop.reason or not drop.detail for drop in report.dropped.list):
        raise Fault("something is listed without a reason")
    if not report.dropped.count == len(report.dropped.list) == sum(Counter(report.dropped.by_reason).values()):
        raise Fault("what is listed is not what is counted")
    written = json.dumps(versioned(dataclasses.asdict(report)), ensure_ascii=False, default=str)
    if from_json(DataReport, written.encode("utf-8", "backslashreplace")).dropped.count != report.dropped.count:
        raise Fault("the report is not read as it was written")


def _require_every_row(found: ReadData, case: Case) -> None:
    (loaded,) = found.loaded
    if case.rows is not None and loaded.source.rows != case.rows:
        raise Fault(f"{case.rows} rows were given, and {loaded.source.rows} were counted")
    if not case.written or loaded.dropped or len(case.files) != 1:
        return
    ((_, content),) = case.files.items()
    used = {number for example in loaded.examples for number in marks(_said(example))}
    lines = re.split(rb"[\r\n]+", content)
    lost = {number for number, line in case.written.items() if line in lines and marks(line.decode()) - used}
    if lost:
        raise Fault(f"rows {sorted(lost)} stand in the file, and are neither used nor listed")


def _require_origin(examples: Sequence[Example], case: Case) -> None:
    """What was not damaged within its text comes from one row, and that is the row it is named after."""
    if case.damage not in ("none", "rows", "cut off"):
        return
    for example in examples:
        numbers = marks(_said(example))
        if len(numbers) > 1:
            raise Fault(f"{example.id} is made of the rows {sorted(numbers)}")
        place = re.fullmatch(r"row (\d+)|.*\.(?:jsonl|ndjson):(\d+)|.*#(\d+)", row_of(example.id), re.DOTALL)
        if place is not None and numbers and case.kind in ("rows in memory", "JSON lines", "JSON list", "parquet"):
            at = int(next(filter(None, place.groups()))) - 1
            if numbers != {at}:
                raise Fault(f"{example.id} holds what row {sorted(numbers)} says")


def _said(example: Example) -> str:
    texts = (example.prompt, *example.completions)
    return "\n".join(text if isinstance(text, str) else "\n".join(m.content for m in text) for text in texts)
