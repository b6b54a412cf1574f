"""What was found in the data, on the console: words, a table with small histograms, and the first rows of each."""

from __future__ import annotations

from rich.table import Table

from tiltlm.cli.console import ConsoleReporter
from tiltlm.report.wording import percent
from tiltlm.runs.data_account import DataFinding, Quality, TokenHistograms

LISTED_ROWS = 3
"""Rows of a finding that are shown; those that the report file holds are 10,000 at most."""
_DETAIL = 160
_SCRIPTS = 6
_WHICH = {"length bias": " (the pairs that differ most)"}
"""What the listed rows of a finding are, where they are not all that it counts."""
_BLOCKS, _ASCII = " ▁▂▃▄▅▆▇█", " .:-=+*#@"


def show_words(quality: Quality, reporter: ConsoleReporter) -> None:
    """What should be looked at, with what can be done; then what else was found, and what was looked for in vain."""
    found = [finding for finding in quality.findings if finding.count]
    for finding in sorted(found, key=lambda one: not one.look):
        reporter.say(f"{'look at' if finding.look else 'found'}: {finding.topic}: {finding.sentence}")
        if finding.look and finding.advice is not None:
            reporter.say(f"  {finding.advice}")
    missing = [finding.topic for finding in quality.findings if not finding.count]
    if missing:
        reporter.say(f"not found: {', '.join(missing)}")
    if quality.scripts:
        listed = [f"{one.script} {one.prompts:,} and {one.completions:,}" for one in quality.scripts[:_SCRIPTS]]
        others = len(quality.scripts) - len(listed)
        more = f"; {others} more" if others else ""
        reporter.say(f"scripts (prompts and completions mostly in it): {'; '.join(listed)}{more}")


def show_parts(quality: Quality, reporter: ConsoleReporter) -> None:
    """A table of the parts of the training examples: lengths as a histogram, and what was cut in both splits."""
    if quality.histograms is None:
        return
    edges = quality.histograms.edges
    table = Table("training tokens", f"0 to {edges[-1]:,} in steps of {edges[1]:,}", "cut (both splits)", "tokens lost")
    table.columns[1].no_wrap = True
    ramp = _ASCII if reporter.console.options.ascii_only else _BLOCKS
    for part in quality.truncation:
        bars = _bars(quality.histograms, part.part, ramp)
        if bars is not None:
            cut = f"{part.cut:,} of {part.texts:,}" if part.cut else ""
            lost = f"{part.tokens_cut:,} ({percent(part.tokens_cut / part.tokens)})" if part.tokens_cut else ""
            table.add_row(part.part, bars, cut, lost)
    reporter.console.print(table)


def _bars(histograms: TokenHistograms, part: str, ramp: str) -> str | None:
    """A character a bin, as high as the bin's share of the fullest; what is there is never blank."""
    for one in histograms.histograms:
        if one.split == "train" and one.part == part:
            most, steps = max(one.counts), len(ramp) - 1
            return "".join(ramp[-(-count * steps // most)] for count in one.counts)
    return None


def show_rows(quality: Quality, reporter: ConsoleReporter) -> None:
    """The first rows of each finding, with what was seen there."""
    for finding in quality.findings:
        if finding.count and finding.rows:
            reporter.say(f"{finding.topic}{_WHICH.get(finding.topic, '')}:")
            for row in finding.rows[:LISTED_ROWS]:
                detail = row.detail or ""
                short = detail if len(detail) <= _DETAIL else detail[:_DETAIL] + "..."
                # One line a row, whatever its text holds.
                reporter.say("  " + " ~ ".join(row.ids) + (": " + " ".join(short.split("\n")) if short else ""))
            if len(finding.rows) > LISTED_ROWS:
                reporter.say(_more(finding))


def _more(finding: DataFinding) -> str:
    return f"  ... and {len(finding.rows) - LISTED_ROWS:,} more (--report FILE.json lists them)"
