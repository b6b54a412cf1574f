"""`tiltlm bench`: measures, prints the tables, and keeps the record and the picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from tiltlm.bench.rounds import benchmark
from tiltlm.bench.speed_picture import draw_speed
from tiltlm.bench.speed_record import PICTURE, RECORD, SpeedRecord
from tiltlm.bench.speed_table import (
    ABLATED_HEAD,
    COMPARED_HEAD,
    QUOTIENT_HEAD,
    Rows,
    ablated_rows,
    compared_rows,
    in_words,
    is_ablation,
    quotient_rows,
)
from tiltlm.cli.bench_words import BenchWords
from tiltlm.cli.console import ConsoleReporter
from tiltlm.pipeline.preflight import prepare_model
from tiltlm.runs.schema import versioned
from tiltlm.storage.whole_files import written_whole


def show_benchmark(words: BenchWords, command: Sequence[str], reporter: ConsoleReporter) -> SpeedRecord:
    """Does what the words say.

    Raises:
        TiltlmError: it cannot be measured.
    """
    prepare_model(words.config, reporter)
    words.output.mkdir(parents=True, exist_ok=True)
    record = benchmark(words.config, words.wanted, command, reporter)
    keep(record, words.output)
    for line in in_words(record):
        reporter.say(line)
    _show(COMPARED_HEAD, compared_rows(record), reporter)
    _show(QUOTIENT_HEAD, quotient_rows(record), reporter)
    if is_ablation(record):
        _show(ABLATED_HEAD, ablated_rows(record), reporter)
    reporter.say(f"The record is {words.output / RECORD}, the picture {words.output / PICTURE}.")
    return record


def keep(record: SpeedRecord, folder: Path) -> None:
    """Writes the record and its picture into a folder."""
    with written_whole(folder / RECORD) as path:
        path.write_text(json.dumps(versioned(dataclasses.asdict(record)), indent=1) + "\n", encoding="utf-8")
    with written_whole(folder / PICTURE) as path:
        draw_speed(record, path)


def _show(head: Sequence[str], rows: Rows, reporter: ConsoleReporter) -> None:
    if not rows:
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    for place, name in enumerate(head):
        table.add_column(name, no_wrap=place == 0)
    for row in rows:
        table.add_row(*row)
    reporter.console.print(table)
