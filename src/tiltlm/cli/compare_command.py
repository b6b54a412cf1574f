"""`tiltlm compare`: the answers of the base and the trained model, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Column, Table

from tiltlm.cli.console import ConsoleReporter
from tiltlm.cli.safe_console import as_it_is
from tiltlm.errors import RunError
from tiltlm.pipeline.assess import ask_models
from tiltlm.runs.answers import Answer, Comparison
from tiltlm.runs.run_files import read_run
from tiltlm.text.visible import shortened

_NARROW = 100
"""Below this many columns, answers stand one below the other."""


def compare_run(run: Path, prompts: Sequence[str], trust_remote_code: bool, reporter: ConsoleReporter) -> None:
    """Shows a run's recorded answers, or new ones to the prompts given.

    trust_remote_code: see `ask_models`.

    Raises:
        RunError: the run, its model or its recorded answers are missing.
    """
    files = read_run(run)
    if not prompts:
        if files.comparison is None:
            raise RunError(f"the run in {run} recorded no answers: give prompts of your own with --prompt TEXT.")
        reporter.say(f"Answers recorded when {run} was trained; --prompt TEXT asks both models anew.")
        show(files.comparison, reporter, str(run / "comparison.json"))
        return
    reporter.say(f"Asking both models of {run}.")
    show(ask_models(run, files, prompts, trust_remote_code, reporter), reporter, None)


def show(comparison: Comparison, reporter: ConsoleReporter, recorded_in: str | None) -> None:
    """Prints each prompt with both models' answers, side by side where the terminal is wide enough.

    recorded_in: the file that holds long texts whole, of which a part is shown; None: answers just made, which are
        nowhere else and shown whole.
    """
    for prompt in comparison.prompts:
        asked = shortened(prompt.prompt.strip(), recorded_in or "the prompt you gave")
        reporter.console.print(as_it_is(f"\n{asked}", "bold"))
        rows = [("greedy", prompt.before.greedy, prompt.after.greedy)]
        rows += [
            (f"sample {number}", old, new)
            for number, (old, new) in enumerate(zip(prompt.before.samples, prompt.after.samples, strict=True), start=1)
        ]
        if reporter.console.width >= _NARROW:
            table = Table(Column(), Column("before", ratio=1), Column("after", ratio=1), show_lines=True, expand=True)
            for name, old, new in rows:
                table.add_row(name, as_it_is(_text(old, recorded_in)), as_it_is(_text(new, recorded_in)))
            reporter.console.print(table)
            continue
        for name, old, new in rows:
            lines = f"\n[{name}] before: {_text(old, recorded_in)}\n[{name}] after: {_text(new, recorded_in)}"
            reporter.console.print(as_it_is(lines))


def _text(answer: Answer, recorded_in: str | None) -> str:
    text = answer.text if recorded_in is None else shortened(answer.text, recorded_in)
    if not text.strip():
        text = "(empty)"
    return text if answer.reward is None else f"{text}\n({answer.reward:+.2f})"
