"""`tiltlm plan`: what a run would take, whether it fits, what else would, and how long it takes."""

from __future__ import annotations

from rich.table import Table

from tiltlm.cli.console import ConsoleReporter
from tiltlm.cli.plan_arguments import Plan
from tiltlm.config import Config
from tiltlm.pipeline.sizing.planning import RunPlan, SharedPlan, plan_run
from tiltlm.pipeline.sizing.rank_planning import Cluster
from tiltlm.pipeline.sizing.run_memory import HEADROOM
from tiltlm.report.wording import duration
from tiltlm.storage.space import in_words


def show_plan(config: Config, reporter: ConsoleReporter, arguments: Plan) -> RunPlan:
    """Prints the plan of a run.

    arguments: those of the command; its settings are those of all stages.

    Raises:
        TiltlmError: the run could not be begun as it is set.
    """
    cluster, sustained = None, arguments.tflops * 1e12 if arguments.tflops is not None else None
    if arguments.ranks is not None:
        cluster = Cluster(arguments.ranks, arguments.per_node, arguments.within * 1e9, arguments.between * 1e9)
    found = plan_run(config, reporter, not arguments.no_calibration, cluster, sustained)
    first = found.ways[0].memory
    reporter.say(f"{first.parameters:,} parameters, of which {first.trained:,} are trained; {found.precision}")
    reporter.say(
        f"{found.steps:,} steps over {found.examples:,} examples, about {found.tokens:,} tokens (prompts once); at "
        f"most {found.budget:,} tokens in a forward pass (training.micro_batch_tokens); the largest micro-batch has "
        f"{found.rows} rows of {found.row} tokens, {found.scored:,} of them scored"
    )
    _show_ways(found, reporter)
    _say_whether_it_fits(found, reporter, alone=cluster is None)
    if found.times:
        _show_times(found, reporter)
    if found.shared is not None:
        _show_shared(found.shared, config, reporter)
    elif cluster is not None:
        reporter.say("How fast a device is was not measured, as the run does not fit here: give --tflops.")
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


def _say_whether_it_fits(found: RunPlan, reporter: ConsoleReporter, alone: bool) -> None:
    own = found.ways[0]
    if found.available is None or found.fits(own):
        return
    reporter.say(
        f"As set, the run takes about {in_words(own.run.most)}, which does not fit with {HEADROOM - 1:.0%} to spare in "
        f"the {in_words(found.available)} available here." + (" What takes less:" if alone else "")
    )
    for one in found.remedies:
        reporter.say(f"  {'fits: ' if one.memory.fits(found.available) else ''}{one.in_words}")
    if not found.remedies and alone:
        reporter.say("  no setting: take a smaller model, or free memory")


def _show_times(found: RunPlan, reporter: ConsoleReporter) -> None:
    reporter.say("Time, told from a little of each stage on this machine as it is:")
    table = Table("stage", "about", "", box=None, padding=(0, 1, 0, 0))
    for one in found.times:
        table.add_row(one.name, duration(one.seconds), one.made_of)
    table.add_row("together", duration(sum(one.seconds for one in found.times)), "")
    reporter.console.print(table)


def _show_shared(found: SharedPlan, config: Config, reporter: ConsoleReporter) -> None:
    cluster, work = found.cluster, found.work
    pace = (
        f"at {found.sustained / 1e12:g} TFLOP/s a device"
        if found.sustained is not None
        else "at the speed measured on this machine"
    )
    reporter.say(
        f"A step on {cluster.ranks:,} ranks, {min(cluster.per_node, cluster.ranks)} a machine "
        f"({cluster.within / 1e9:g} GB/s within one, {cluster.between / 1e9:g} between them), {pace}: "
        f"{work.columns:,.0f} tokens of {config.training.batch_pairs:,} examples, {work.passes:.3g} micro-batches a "
        f"rank, {1 - work.busy:.0%} idle as examples are not equally long; one device alone takes {found.alone:.3g} s:"
    )
    table = Table(
        *("distributed.shard", "memory of a rank", "sent within", "between", "computing", "on the wire", "a step"),
        *("times faster", "of all there is"),
        box=None,
        padding=(0, 1, 0, 0),
    )
    for one in found.ways:
        faster = [found.alone / seconds for seconds in (one.at_worst, one.at_best)]
        table.add_row(
            str(one.shard),
            in_words(one.memory),
            in_words(round(one.within)),
            in_words(round(one.between)),
            f"{one.computing:.3g} s",
            f"{one.wire:.3g} s",
            f"{one.at_best:.3g} to {one.at_worst:.3g} s",
            f"{faster[0]:.3g} to {faster[1]:.3g}",
            f"{faster[0] / cluster.ranks:.0%} to {faster[1] / cluster.ranks:.0%}",
        )
    reporter.console.print(table)
    reporter.say(
        "From what is sent while something is computed, all of it or nothing, come the two ends of a step. "
        "docs/scale.md says what of this was measured."
    )
    if config.training.batch_pairs < cluster.ranks:
        reporter.say(
            f"  {cluster.ranks - config.training.batch_pairs:,} ranks have nothing to do: training.batch_pairs is "
            f"{config.training.batch_pairs:,}, and a rank needs one example at least."
        )
