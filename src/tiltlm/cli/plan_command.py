"""`tiltlm plan`: what a run would take, whether it fits, what else would, and how long it takes."""

from __future__ import annotations

from rich.table import Table

from tiltlm.cli.console import ConsoleReporter
from tiltlm.config import Config
from tiltlm.pipeline.planning import RunPlan, plan_run
from tiltlm.pipeline.run_memory import HEADROOM
from tiltlm.report.wording import duration
from tiltlm.storage.space import in_words


def show_plan(config: Config, reporter: ConsoleReporter, calibrated: bool) -> RunPlan:
    """Prints the plan of a run.

    calibrated: whether the time is told too, from a little of each stage.

    Raises:
        TiltlmError: the run could not be begun as it is set.
    """
    found = plan_run(config, reporter, calibrated)
    first = found.ways[0].memory
    reporter.say(f"{first.parameters:,} parameters, of which {first.trained:,} are trained; {found.precision}")
    reporter.say(
        f"{found.steps:,} steps over {found.examples:,} examples, about {found.tokens:,} tokens (prompts once); at "
        f"most {found.budget:,} tokens in a forward pass (training.micro_batch_tokens); the largest micro-batch has "
        f"{found.rows} rows of {found.row} tokens, {found.scored:,} of them scored"
    )
    _show_ways(found, reporter)
    _say_whether_it_fits(found, reporter)
    if found.times:
        _show_times(found, reporter)
    return found


def _show_ways(found: RunPlan, reporter: ConsoleReporter) -> None:
    has = "of unknown size" if found.available is None else f"of which {in_words(found.available)} are available"
    besides = in_words(found.ways[0].run.besides)
    reporter.say(
        f"Memory of a run on the {found.device} of this machine, {has}; `peak` is a step with what the process holds "
        f"besides, about {besides} as set:"
    )
    numbers = ("weights", "gradients", "moments", "activations", "peak")
    table = Table("", "trained", *numbers, "fits", "checkpoint", box=None, padding=(0, 1, 0, 0))
    for one in found.ways:
        own = one.memory
        parts = (own.weights, own.gradients, own.moments, own.activations, one.run.most)
        fits = {True: "yes", False: "no", None: "?"}[found.fits(one)]
        table.add_row(one.name, f"{own.trained:,}", *map(in_words, parts), fits, in_words(own.checkpoint))
    reporter.console.print(table)
    reporter.say(
        f"Activations are those of one micro-batch, a chunk of logits ({in_words(found.ways[0].memory.logits)}) and "
        "rounded weights among them. docs/planning.md says how far this is off."
    )


def _say_whether_it_fits(found: RunPlan, reporter: ConsoleReporter) -> None:
    own = found.ways[0]
    if found.available is None or found.fits(own):
        return
    reporter.say(
        f"As set, the run takes about {in_words(own.run.most)}, which does not fit with {HEADROOM - 1:.0%} to spare in "
        f"the {in_words(found.available)} available. What takes less:"
    )
    for one in found.remedies:
        reporter.say(f"  {'fits: ' if one.memory.fits(found.available) else ''}{one.in_words}")
    if not found.remedies:
        reporter.say("  no setting: take a smaller model, or free memory")


def _show_times(found: RunPlan, reporter: ConsoleReporter) -> None:
    reporter.say("Time, told from a little of each stage on this machine as it is:")
    table = Table("stage", "about", "", box=None, padding=(0, 1, 0, 0))
    for one in found.times:
        table.add_row(one.name, duration(one.seconds), one.made_of)
    table.add_row("together", duration(sum(one.seconds for one in found.times)), "")
    reporter.console.print(table)
