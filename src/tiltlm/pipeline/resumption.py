"""Going on with a run that was stopped or killed: as if it never had been, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tiltlm.checkpoints import identity
from tiltlm.checkpoints.keeper import Checkpoints, Found, last_whole
from tiltlm.checkpoints.state_files import read_state
from tiltlm.config import Config, config_from_dict, settings_table
from tiltlm.config.resuming import Resume
from tiltlm.errors import RunError
from tiltlm.pipeline.reporter import Reporter
from tiltlm.runs.environment import Environment
from tiltlm.runs.folder import RunFolder, is_run
from tiltlm.runs.lock import locked
from tiltlm.runs.outcomes import Outcome, Resumption
from tiltlm.runs.run_files import RunFiles, read_run
from tiltlm.storage.durable import sync
from tiltlm.text.masking import masked_values
from tiltlm.training.loop import Trainer

ALLOWED_BY = {
    identity.EXAMPLES: "data",
    identity.HELD_OUT: "data",
    identity.REFERENCE: "reference",
    identity.WEIGHTS: "model",
    identity.ARITHMETIC: "model.precision",
}
"""By which name a difference of a checkpoint's identity is allowed; settings are allowed by their own."""
DATA_REPORT = "data_report.json"
"""The last file that is written before the work."""
_WITHOUT_EFFECT = ("run.name", "run.directory", "run.overwrite", "checkpoint.")
"""Settings that do not change what a run comes to."""


@dataclass(slots=True, eq=False)
class ReopenedRun:
    """A run that goes on, while no other process works on it."""

    folder: RunFolder
    files: RunFiles
    found: Found | None
    allowed: frozenset[str]
    differences: list[str] = field(default_factory=list)

    @property
    def earlier(self) -> Outcome | None:
        return self.files.outcome

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.earlier is not None and self.earlier.status == "completed" and not self.differences

    def require_same(self, now: Mapping[str, str]) -> None:
        """Compares what the checkpoint is of with what there is.

        Raises:
            RunError: something is another than it was, and was not allowed to be.
        """
        if self.found is not None:
            was = self.found.record.identity
            self._require({name: (was.get(name, "none"), now[name]) for name in now}, ALLOWED_BY)

    def require_same_settings(self, config: Config) -> None:
        """Compares the run's settings with those it is to go on with.

        Raises:
            RunError: one that has an effect is another, and was not allowed to be.
        """
        was, now = (_flat(settings) for settings in (config_from_dict(self.files.settings), config))
        values = {name: (was.get(name, "none"), now.get(name, "none")) for name in {**was, **now}}
        counted = {name: pair for name, pair in values.items() if not name.startswith(_WITHOUT_EFFECT)}
        self._require(counted, {name: name for name in counted})

    def note_environment(self, now: Environment, reporter: Reporter) -> None:
        """Says what of the machine and the packages is another: results are then equal within rounding only."""
        before = self.files.environment
        was = {**before.versions, "device": before.device, "platform": before.platform}
        current = {**now.versions, "device": now.device, "platform": now.platform}
        others = [
            f"{name} {was.get(name)} then, {current[name]} now" for name in current if was.get(name) != current[name]
        ]
        if others:
            self.differences += others
            reporter.say(
                "  another machine or other packages than before, so results may differ by rounding: "
                + ", ".join(others)
            )

    def restore(self, trainer: Trainer, checkpoints: Checkpoints, reporter: Reporter) -> None:
        """Puts trainer and metrics back to the checkpoint, or to the beginning where there is none."""
        metrics = self.folder.metrics
        if self.found is None:
            metrics.unlink(missing_ok=True)
            reporter.say("  there is no checkpoint: training begins at its beginning")
            return
        for name, why in self.found.damaged.items():
            reporter.say(f"  the checkpoint {name} is damaged ({why}): it is called damaged-{name} from here on")
        trainer.restore(read_state(self.found.path))
        os.truncate(metrics, self.found.record.metrics_bytes)
        sync(metrics)
        checkpoints.went_on_from(self.found)
        reporter.say(f"  goes on after step {trainer.progress.step}, from {self.found.path}")

    def resumption(self) -> Resumption:
        """What the run's record says of this."""
        step, damaged = (self.found.record.step, tuple(self.found.damaged)) if self.found is not None else (0, ())
        return Resumption(step=step, damaged=damaged, differences=tuple(self.differences))

    def _require(self, values: Mapping[str, tuple[str, str]], allowed_by: Mapping[str, str]) -> None:
        others = {name: pair for name, pair in values.items() if pair[0] != pair[1]}
        listed = [f"{name}: {was} then, {now} now" for name, (was, now) in others.items()]
        refused = list(dict.fromkeys(allowed_by[name] for name in others if allowed_by[name] not in self.allowed))
        if refused:
            raise RunError(
                f"the run in {self.folder.path} would not go on as it began ({'; '.join(listed)}). Give it what it "
                f"had, or allow by name what may be another: --allow {' '.join(refused)}."
            )
        self.differences += [difference for difference in listed if difference not in self.differences]


@contextmanager
def reopened(config: Config, resume: Resume) -> Iterator[ReopenedRun]:
    """A run's folder, to go on in, with its last whole checkpoint; remains of a killed process are removed.

    Raises:
        RunError: there is no run, another process works on it, its settings are others, or all checkpoints are damaged.
    """
    folder = RunFolder(resume.run)
    if is_run(folder.path) and not (folder.path / DATA_REPORT).is_file():
        raise RunError(
            f"the run in {folder.path} ended before its work began, so there is nothing to go on from: start it again "
            "with the command that started it."
        )
    files = read_run(folder.path)
    with locked(folder.path):
        found = last_whole(folder.checkpoints, folder.metrics)
        run = ReopenedRun(folder, files, found, resume.allowed)
        run.require_same_settings(config)
        if not run.complete:
            for remains in folder.path.glob(".model.*"):
                shutil.rmtree(remains, ignore_errors=True)
        yield run


def _flat(config: Config) -> dict[str, str]:
    """Every setting as text, by `section.option`, without secrets: those of a record are masked."""
    table = settings_table(config)
    return {
        f"{section}.{option}": str(masked_values(value))
        for section, options in table.items()
        for option, value in options.items()
    }
