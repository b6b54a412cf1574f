"""`tiltlm inspect`: what is in the data, before training on it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tiltlm.cli.console import ConsoleReporter
from tiltlm.cli.data_findings import show_parts, show_rows, show_words
from tiltlm.config import Config
from tiltlm.data.preparation import examine_data, read_data
from tiltlm.errors import DataError
from tiltlm.pipeline.setup import set_up
from tiltlm.report.wording import count
from tiltlm.runs.data_account import DataReport, Lengths, ShownExample, Split
from tiltlm.storage.cache import TOKENS, cache_folder

LISTED = 10
"""Dropped rows shown; all of them are in the report file."""


def inspect_data(config: Config, report_file: Path | None, reporter: ConsoleReporter) -> DataReport:
    """Prints the account of the data as training would see it, and keeps it in `report_file` if one is named.

    Data that is not enough to train on is shown all the same, with the reason.

    Raises:
        TiltlmError: the data or the model's tokenizer cannot be had, or no pair can be used.
    """
    setup = set_up(config)
    read = read_data(config, config.loss.objective.needs)
    with reporter.progress("tokenizing", len(read.train) + len(read.held_out), f"{read.noun}s") as advance:
        data, problem = examine_data(read, setup.tokenizer, advance, cache_folder() / TOKENS)
    report = data.report
    _show(report, read.noun, reporter)
    if report_file is not None:
        report_file.write_text(
            json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False) + "\n", "utf-8", "backslashreplace"
        )
        reporter.say(f"The whole account is in {report_file}.")
    if problem is not None:
        if not data.train and not data.eval:
            raise DataError(problem)
        reporter.say(f"This is not enough to train on: {problem}")
    return report


def _show(report: DataReport, noun: str, reporter: ConsoleReporter) -> None:
    for source in report.sources:
        reporter.say(f"{source.name} ({source.role}): {source.rows} rows, {source.pairs} {noun}s")
        reporter.say(f"  read as `{source.format}`: {source.format_why}")
    rows, dropped = sum(source.rows for source in report.sources), report.dropped
    reasons = "".join(f"; {count} {reason}" for reason, count in dropped.by_reason.items())
    if dropped.count >= _MANY * rows:
        reporter.say(f"look at: dropped: {dropped.count}, of {rows} rows{reasons}")
    if report.quality is not None:
        show_words(report.quality, reporter)
    table = Table("", "training", "held out")
    splits = [report.train, report.eval]
    for name, row in {f"{noun}s": _number, **_ROWS}.items():
        table.add_row(name, *(row(split) if split is not None else "" for split in splits))
    reporter.console.print(table)
    if report.quality is not None:
        show_parts(report.quality, reporter)
        show_rows(report.quality, reporter)
    reporter.say(f"dropped: {dropped.count}{reasons}")
    for drop in dropped.list[:LISTED]:
        reporter.say(f"  {drop.id}: {drop.reason}: {drop.detail}")
    if dropped.count > LISTED:
        reporter.say(f"  ... and {dropped.count - LISTED} more (--report FILE.json lists all)")
    for note in report.notes:
        reporter.say(f"note: {note}")
    for example in report.examples[:1]:
        _show_example(example, reporter)


def _show_example(example: ShownExample, reporter: ConsoleReporter) -> None:
    """The tokens of its sequences as text; what is scored stands reversed or, without a terminal, in brackets."""
    terminal = reporter.console.is_terminal
    begin, end, how = ("", "", "reversed") if terminal else ("[[", "]]", "in [[double brackets]]")
    reporter.console.print(f"\n[bold]The first example, {escape(example.id)}, as the model sees it[/bold]")
    if example.prompt_tokens_cut:
        reporter.say(f"Its prompt lost {count(example.prompt_tokens_cut, 'token')} to fit data.max_length.")
    other = example.prompt if example.rejected_prompt is None else example.rejected_prompt
    sides = (
        ("chosen", example.prompt, example.chosen, example.chosen_tokens_cut),
        ("rejected", other, example.rejected, example.rejected_tokens_cut),
    )
    for side, prompt, completion, cut in sides:
        if completion is None:
            continue
        missing = f" ... {count(cut, 'token')} cut" if cut else ""
        # Through the console, which may have its own way with what it is given to show.
        shown = [reporter.console.render_str(escape(text)) for text in (prompt, f"{begin}{completion}{end}")]
        if terminal:
            shown[1].stylize("reverse")
        reporter.console.print(Text.assemble((side, "bold"), ": ", *shown, missing))
    reporter.say(f"Only what stands {how} is scored.")


def _lengths(lengths: Lengths | None) -> str:
    return f"{lengths.mean:.0f} / {lengths.median:.0f} / {lengths.max}" if lengths is not None else ""


def _saving(split: Split) -> str:
    if not split.tokens_laid_out or not split.tokens_without_sharing:
        return ""
    return f"{split.tokens_laid_out:,} instead of {split.tokens_without_sharing:,}"


def _number(split: Split) -> str:
    return f"{split.pairs:,}"


_MANY = 0.05
"""Share of the rows that are dropped from which on that is said first."""
_ROWS: dict[str, Callable[[Split], str]] = {
    "different prompts": lambda split: f"{split.prompts:,}",
    "prompt tokens (mean / median / max)": lambda split: _lengths(split.prompt_tokens),
    "chosen tokens": lambda split: _lengths(split.chosen_tokens),
    "rejected tokens": lambda split: _lengths(split.rejected_tokens),
    "chosen is longer": lambda split: "" if split.chosen_longer is None else f"{100 * split.chosen_longer:.0f}%",
    "prompts cut to fit": lambda split: f"{split.prompts_cut:,}",
    "completions cut to fit": lambda split: f"{split.completions_cut or 0:,}",
    "tokens after sharing prompts": _saving,
}
