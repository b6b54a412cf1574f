"""What a person sees while it runs: stages, progress with time left, and plain lines where there is no terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils.tqdm import disable_progress_bars
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers.utils.logging import disable_progress_bar

from tiltlm.cli.safe_console import SafeConsole, as_it_is
from tiltlm.pipeline.reporter import Advance, timed
from tiltlm.text.masking import masked
from tiltlm.text.visible import visible

PLAIN_LINE_SECONDS = 15.0
"""Without a terminal, progress is a line at most this often."""


class ConsoleReporter:
    """Writes to standard output; a stage's duration is kept under its name."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or SafeConsole(highlight=False, emoji=False, soft_wrap=True)
        # The libraries' own bars for steps of a second would break up ours.
        disable_progress_bar()
        if not self.console.is_terminal:
            disable_progress_bars()
            # Read when `datasets` is imported, which is late, and costs a second that most runs need not spend.
            os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        self.stages: dict[str, float] = {}

    def say(self, text: str) -> None:
        """A line, exactly as it is but for secrets and hidden characters."""
        self.console.print(as_it_is(masked(text)))

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """A stage of the work: announced, timed, and named in the summary."""
        self.console.print(as_it_is(masked(title), "bold"))
        with timed(self.stages, name):
            yield

    @contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Advance]:
        """Counts up to `total`; gives a function to call with how many more are done."""
        if self.console.is_terminal:
            with self._bar(what, total, unit) as advance:
                yield advance
        else:
            yield self._lines(what, total, unit)

    @contextmanager
    def _bar(self, what: str, total: int, unit: str) -> Iterator[Advance]:
        columns = (
            TextColumn("  {task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(visible(unit).replace("{", "{{").replace("}", "}}"), markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(visible(what), total=total)
            yield lambda more: progress.advance(task, more)

    def _lines(self, what: str, total: int, unit: str) -> Advance:
        start = last = time.perf_counter()
        done = 0

        def advance(more: int) -> None:
            nonlocal done, last
            done += more
            now = time.perf_counter()
            if done < total and now - last >= PLAIN_LINE_SECONDS:
                last = now
                left = (now - start) / done * (total - done)
                self.say(f"  {what}: {done} of {total} {unit}, about {left:.0f} s left")

        return advance
