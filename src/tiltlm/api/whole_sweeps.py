"""Sweeps from Python: grids and trials over settings, with names and paths or with what a program holds already."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tiltlm.api.side_effects import leaving_no_trace
from tiltlm.api.whole_runs import Rows, Settings, settings_given, with_data, with_model
from tiltlm.config.sections import Config, RunConfig
from tiltlm.config.sweep_plan import Metric, SweepPlan, metric_named
from tiltlm.config.sweeping import values_given
from tiltlm.config.validation import with_home
from tiltlm.errors import ConfigError
from tiltlm.model.given import Model
from tiltlm.pipeline.reporter import LogReporter, Reporter
from tiltlm.pipeline.sweeps.sweep import Sweep, resume_sweep, start_sweep
from tiltlm.runs.folder import free_name
from tiltlm.training.observers import Observer


def sweep(
    config: Settings | None = None,
    grid: Mapping[str, Sequence[Any] | str] | None = None,
    *,
    trials: int | None = None,
    metric: Metric | None = None,
    model: Model | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    train: str | Path | Rows | None = None,
    eval: str | Path | Rows | None = None,
    reporter: Reporter | None = None,
    observers: Sequence[Observer] = (),
    resume: str | Path | None = None,
    retry_failed: bool = False,
) -> Sweep:
    """Runs a sweep, as `tiltlm sweep` does, and leaves its members and its page in the sweep's folder.

    A member that fails does not end it: see `Sweep.failed`.

    Args:
        config: the settings that all members share.
        grid: what is swept, by option: a list of values, or for trials a range as text, such as `"1e-7..1e-5"`.
        trials: draw so many members, in place of every combination.
        metric: with trials, the held-out figure to make the best of: accuracy, if none is given.
        model, tokenizer, train, eval: as for `tiltlm.train`.
        reporter: is told how it goes; without one Python's `logging` is.
        observers: are called with every row of every member.
        resume: the folder of a sweep to go on with; its plan is its own, and rows and a loaded model are given again.
        retry_failed: with `resume`, begin the members that failed anew.

    Raises:
        TiltlmError: before any work, with what is wrong and how to mend it.
    """
    with leaving_no_trace():
        settings, given = with_data(with_model(settings_given(config), model, tokenizer), train, eval)
        told = reporter or LogReporter()
        if resume is not None:
            if config is not None or grid is not None or trials is not None or metric is not None:
                raise ConfigError("a sweep that goes on has its plan: leave config, grid, trials and metric out.")
            return resume_sweep(Path(resume).expanduser(), told, tuple(observers), given, retry_failed)
        if retry_failed:
            raise ConfigError("`retry_failed` has no effect without `resume`: name the sweep to go on with.")
        if metric is not None and trials is None:
            raise ConfigError("`metric` has no effect without `trials`: every combination of a grid is run to its end.")
        swept = {option: values_given(option, values) for option, values in (grid or {}).items()}
        plan = SweepPlan(_named(with_home(settings)), swept, trials, metric_named(metric or "accuracy"))
        return start_sweep(plan, ("tiltlm.sweep",), told, tuple(observers), given)


def _named(config: Config) -> Config:
    """The settings with a name for the sweep, the first free one where theirs is that of any run."""
    if config.run.name != RunConfig.name:
        return config
    name = free_name(Path(config.run.directory), "sweep")
    return dataclasses.replace(config, run=dataclasses.replace(config.run, name=name))
