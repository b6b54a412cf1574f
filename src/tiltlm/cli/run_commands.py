"""The commands that make something else of a run that is there. What one needs is imported when it is run."""

from __future__ import annotations

from collections.abc import Sequence

from tiltlm.cli.imports import importing
from tiltlm.cli.named_runs import existing_run
from tiltlm.errors import ConfigError
from tiltlm.text.visible import visible


def report_run(words: Sequence[str]) -> int:
    """Rebuilds the report of a run or sweep."""
    if not words:
        raise ConfigError("name the run or sweep to report on: tiltlm report runs/NAME.")
    from tiltlm.cli.arguments import Report
    from tiltlm.cli.command_line import parse_simple

    arguments = parse_simple(Report, words, {}, positional=1)
    from tiltlm.report.page import write_report
    from tiltlm.report.sweep_page import write_sweep_report
    from tiltlm.runs.sweep_folder import is_sweep

    folder = existing_run(arguments.run)
    print(visible(f"rebuilt {(write_sweep_report if is_sweep(folder) else write_report)(folder)}"))
    return 0


def export_run(words: Sequence[str]) -> int:
    """Writes a checkpoint as a model."""
    if sum(not word.startswith("-") for word in words[:2]) < 2 and not {"-h", "--help"} & set(words):
        raise ConfigError("name the run and the folder to write the model into: tiltlm export runs/NAME FOLDER.")
    from tiltlm.cli.arguments import Export
    from tiltlm.cli.command_line import parse_simple

    arguments = parse_simple(Export, words, {"checkpoint": str}, positional=2)
    from tiltlm.cli.console import ConsoleReporter
    from tiltlm.pipeline.saved_models.exporting import export

    export(existing_run(arguments.run), arguments.checkpoint, arguments.model.expanduser(), ConsoleReporter())
    return 0


def merge_run(words: Sequence[str]) -> int:
    """Writes a run's adapter, merged into its model."""
    if not words:
        raise ConfigError("name the run whose adapter is to be merged: tiltlm merge runs/NAME [FOLDER].")
    from tiltlm.cli.arguments import Merge
    from tiltlm.cli.command_line import parse_simple

    arguments = parse_simple(Merge, words, {}, positional=2)
    with importing():
        from tiltlm.cli.console import ConsoleReporter
        from tiltlm.pipeline.saved_models.merging import merge

    merge(existing_run(arguments.run), arguments.model and arguments.model.expanduser(), ConsoleReporter())
    return 0
