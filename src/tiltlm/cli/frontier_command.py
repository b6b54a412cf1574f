"""`tiltlm frontier`: how close a run came to the most reward that any policy could have had at its KL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_type_hints

from tiltlm.cli.command_line import parse_simple
from tiltlm.cli.frontier_arguments import Frontier
from tiltlm.cli.imports import importing
from tiltlm.cli.named_runs import existing_run
from tiltlm.errors import ConfigError

if TYPE_CHECKING:
    from tiltlm.cli.console import ConsoleReporter
    from tiltlm.runs.frontier_record import Frontier as Record


def run_frontier(words: Sequence[str]) -> int:
    """Does what the words behind `tiltlm frontier` say; returns the exit code.

    Raises:
        ConfigError: a word is not understood, or no reward is known.
        TiltlmError: the run's model, its data or its judge cannot be had.
    """
    if not words:
        raise ConfigError("name the run: tiltlm frontier runs/NAME.")
    hints = {name: kind for name, kind in get_type_hints(Frontier).items() if name != "run"}
    arguments = parse_simple(Frontier, words, hints, positional=1)
    with importing():
        from tiltlm.cli.console import ConsoleReporter
        from tiltlm.pipeline.own_answers.run_frontier import Asking, measure_frontier
        from tiltlm.report.frontier_words import of_frontier

    reporter, run = ConsoleReporter(), existing_run(arguments.run)
    asking = Asking(
        arguments.reward,
        arguments.prompts,
        arguments.reference_answers,
        arguments.answers,
        not arguments.no_checkpoints,
        arguments.trust_remote_code,
    )
    found = measure_frontier(run, asking, reporter)
    _show(found, reporter)
    for sentence in of_frontier(found):
        reporter.say(sentence)
    reporter.say(f"The figures are in {run / 'frontier.json'}, the picture in {run / 'report.html'}.")
    return 0


def _show(found: Record, reporter: ConsoleReporter) -> None:
    from rich.table import Table

    from tiltlm.report.frontier_words import path_rows

    table = Table("model", "reward", "KL, nats", "limit", "share of the possible gain")
    for row in path_rows(found):
        table.add_row(row.name, row.reward, row.kl, row.limit, row.share)
    reporter.console.print(table)
