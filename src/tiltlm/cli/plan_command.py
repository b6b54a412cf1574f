"""`tiltlm plan`: what a run would take, and what other ways to train would."""

from __future__ import annotations

from rich.table import Table

from tiltlm.cli.console import ConsoleReporter
from tiltlm.config import Config
from tiltlm.model.memory import BESIDES
from tiltlm.pipeline.planning import RunPlan, plan_run
from tiltlm.storage.space import in_words


def show_plan(config: Config, reporter: ConsoleReporter) -> RunPlan:
    """Prints the plan of a run.

    Raises:
        TiltlmError: the run could not be begun as it is set.
    """
    found = plan_run(config, reporter)
    first = found.ways[0].memory
    reporter.say(f"{first.parameters:,} parameters, of which {first.trained:,} are trained; {found.precision}")
    reporter.say(
        f"{found.steps:,} steps over {found.examples:,} examples, about {found.tokens:,} tokens (prompts once); the "
        f"largest micro-batch has {found.rows} rows of {found.row} tokens, {found.scored:,} of them scored"
    )
    has = "of unknown size" if found.memory is None else f"of {in_words(found.memory)}"
    reporter.say(
        f"Memory of one step on the {found.device} of this machine, {has}; a process holds about {in_words(BESIDES)} "
        "besides:"
    )
    numbers = ("weights", "gradients", "moments", "activations", "together")
    table = Table("", "trained", *numbers, "fits", "checkpoint", box=None, padding=(0, 1, 0, 0))
    for one in found.ways:
        own = one.memory
        parts = (own.weights, own.gradients, own.moments, own.activations, own.total)
        fits = {True: "yes", False: "no", None: "?"}[found.fits(one)]
        table.add_row(one.name, f"{own.trained:,}", *map(in_words, parts), fits, in_words(own.checkpoint))
    reporter.console.print(table)
    reporter.say(
        f"Activations are those of one micro-batch, a chunk of logits ({in_words(first.logits)}) and rounded weights "
        "among them: training.micro_batch_tokens makes them smaller, and so does recomputing most of them "
        "(training.activation_checkpointing). docs/adapters.md says how far this is off."
    )
    return found
