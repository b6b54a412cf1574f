"""`tiltlm sweep`: what it shows, and how it ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tiltlm.cli.sweep_words import SweepWords
from tiltlm.config import Config
from tiltlm.config.sweep_plan import SweepPlan, in_folder, member_name
from tiltlm.pipeline.preflight import prepare_model
from tiltlm.pipeline.prepare import prepare
from tiltlm.pipeline.reporter import LogReporter, Reporter
from tiltlm.pipeline.setup import set_up
from tiltlm.pipeline.sweeps.sweep import planned_members, resume_sweep, start_sweep
from tiltlm.report.wording import count
from tiltlm.training.step_plans import total_steps

INTERRUPTED = 130


def run_sweep(words: SweepWords, command: Sequence[str], reporter: Reporter) -> int:
    """Runs, goes on with or only shows a sweep. The exit code: 0 done, 1 where a member failed, 130 interrupted."""
    if words.note is not None:
        reporter.say(words.note)
    if words.plan is not None and words.dry_run:
        show_plan(words.plan, reporter)
        return 0
    if words.plan is not None:
        sweep = start_sweep(words.plan, command, reporter)
    else:
        assert words.resume is not None
        sweep = resume_sweep(words.resume, reporter, retry_failed=words.retry_failed)
    if not sweep.complete:
        return INTERRUPTED
    if sweep.failed:
        reporter.say(
            f"{count(len(sweep.failed), 'member')} failed; to try again: "
            f"tiltlm sweep --resume {sweep.folder} --retry-failed"
        )
    return 1 if sweep.failed else 0


def show_plan(plan: SweepPlan, reporter: Reporter) -> None:
    """Says what members there would be, each with its optimizer steps; nothing is trained and nothing written."""
    found, notes = planned_members(plan)
    for note in notes:
        reporter.say(f"note: {note}")
    if plan.trials is not None:
        spaces = [f"{option} of {', '.join(map(str, values))}" for option, values in plan.values.items()]
        spaces += [
            f"{option} in {ends}, {'logarithmically' if ends.logarithmic else 'evenly'}"
            for option, ends in plan.ranges.items()
        ]
        reporter.say(f"{count(plan.trials, 'member')}, for the best held-out {plan.metric}: {'; '.join(spaces)}")
        return
    steps = _Steps(reporter)
    for number, one in enumerate(found, start=1):
        name = member_name(number, one.settings)
        reporter.say(f"{name}: {one}; {count(steps.of(in_folder(one.config, Path(), name)), 'step')}")
    reporter.say(f"{count(len(found), 'member')}; nothing was done (--dry-run).")


class _Steps:
    """Counts optimizer steps; data are read where their number decides, once for members that share them."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._examples: list[tuple[object, int]] = []

    def of(self, config: Config) -> int:
        """Optimizer steps of a member."""
        if config.training.max_steps is not None:
            return config.training.max_steps
        shared = (config.data, config.model, config.hub, config.run.seed, config.loss.objective.needs)
        known = next((examples for key, examples in self._examples if key == shared), None)
        if known is None:
            prepare_model(config, self._reporter)
            lasting = dataclasses.replace(config, training=dataclasses.replace(config.training, warmup_steps=0))
            known = len(prepare(set_up(lasting), LogReporter()).train)
            self._examples.append((shared, known))
        return total_steps(config.training, known)
