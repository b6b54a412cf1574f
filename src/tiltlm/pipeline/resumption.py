"""Going on with a run that was stopped or killed: as if it never had been, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tiltlm.checkpoints import identity
from tiltlm.checkpoints.checkpoint_folder import read_record, set_aside, sweep
from tiltlm.checkpoints.keeper import Checkpoints, Found, last_whole
from tiltlm.checkpoints.state_files import read_state
from tiltlm.config import Config, config_from_dict, settings_table
from tiltlm.config.resuming import Resume, left_by_stage_before, pairs_of_round
from tiltlm.distributed.sharding import closed
from tiltlm.errors import RunError
from tiltlm.model.dither import add_dither, remove_dither
from tiltlm.pipeline.ranks_at_work import DATA_REPORT
from tiltlm.pipeline.reporter import Reporter
from tiltlm.runs.environment import Environment
from tiltlm.runs.folder import STAGES, RunFolder, is_run
from tiltlm.runs.lock import locked
from tiltlm.runs.outcomes import Outcome, Resumption
from tiltlm.runs.run_files import FRONTIER, RunFiles, read_run
from tiltlm.storage.whole_files import EARLIER, sync
from tiltlm.text.masking import masked_values
from tiltlm.training.loop import Trainer

ALLOWED_BY = {
    identity.EXAMPLES: "data",
    identity.HELD_OUT: "data",
    identity.REFERENCE: "reference",
    identity.WEIGHTS: "model",
    identity.ARITHMETIC: "model.precision",
    identity.OBJECTIVE: "objective",
}
"""By which name a difference of a checkpoint's identity is allowed; settings are allowed by their own."""
_WITHOUT_EFFECT = ("run.name", "run.directory", "run.overwrite", "run.trackers", "checkpoint.", "distributed.")
"""Settings that do not change what a run comes to."""
OF_THE_MODEL = ("evaluation.json", "origins.json", "comparison.json", "comparison.md", FRONTIER)
"""What is recorded of a trained model beside its folder."""


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
    def came_to_its_end(self) -> bool:
        """Whether the run was completed as it was set."""
        return self.earlier is not None and self.earlier.status == "completed" and self.folder.model.is_dir()

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.came_to_its_end and not self.differences

    def require_same(self, now: Mapping[str, str]) -> None:
        """Compares what the checkpoint is of with what there is.

        Raises:
            RunError: something is another than it was, and was not allowed to be.
        """
        if self.found is not None:
            was = self.found.record.identity
            self._require({name: (was.get(name, "none"), now[name]) for name in now}, ALLOWED_BY)

    def require_same_settings(self, config: Config) -> None:
        """Compares the settings of the checkpoint, or of the run where it has none, with those it is to go on with.

        Raises:
            RunError: one is another, and was not allowed to be; or the run came to its end with other settings, and has
                no checkpoint of its end.
        """
        record = self.found.record if self.found is not None else None
        was = effective_settings(config_from_dict(self.files.settings)) if record is None else record.settings
        now = effective_settings(config)
        # A run of before there was an option had what is its default since.
        default = {name: value for name, value in effective_settings(Config()).items() if not name.startswith("loss.")}
        values = {name: (was.get(name, default.get(name, "none")), now.get(name, "none")) for name in {**was, **now}}
        self._require(values, {name: name for name in values})
        last = len(self.files.metrics.train)
        if self.differences and self.came_to_its_end and (record is None or record.step != last):
            raise RunError(
                f"the run in {self.folder.path} came to its end at step {last}, and has no checkpoint of that step to "
                f"go on from: start another run from its model (--model.path {self.folder.model})."
            )

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

    def checkpoint(self, trainer: Trainer, reporter: Reporter) -> Path | None:
        """What a trainer is to go on from; None where there is no checkpoint, so that it begins at its beginning.

        What the run left when it ended before is from here on of another model than it comes to, and removed; its model
        stays until there is the new one.

        Raises:
            RunError: the checkpoint is of a later step than the run has.
        """
        metrics, found = self.folder.metrics, self.found
        if found is not None and found.record.step > trainer.steps:
            raise RunError(
                f"the run in {self.folder.path} has taken {found.record.step} steps, and is to have {trainer.steps}: "
                "train for longer, or tiltlm export a checkpoint."
            )
        sweep(self.folder.checkpoints)
        for name in OF_THE_MODEL:
            (self.folder.path / name).unlink(missing_ok=True)
        if found is None:
            metrics.unlink(missing_ok=True)
            reporter.say("  there is no checkpoint: training begins at its beginning")
            return None
        for name, why in found.unused.items():
            set_aside(self.folder.checkpoints / name)
            reporter.say(f"  the checkpoint {name} is not used, as {why}: it is called unused-{name} from here on")
        return found.path.absolute()

    def restored(self, trainer: Trainer, checkpoints: Checkpoints, reporter: Reporter) -> None:
        """Puts metrics and checkpoints back to that state, once the trainer is in it."""
        metrics, found = self.folder.metrics, self.found
        if found is None:
            return
        os.truncate(metrics, found.record.metrics.bytes)
        sync(metrics)
        checkpoints.went_on_from(found)
        reporter.say(f"  goes on after step {trainer.progress.step}, from {found.path}")

    def resumption(self, repeatable: bool) -> Resumption:
        """What the run's record says of this.

        repeatable: whether the device's kernels give the same bits each time.
        """
        step, unused = (self.found.record.step, tuple(self.found.unused)) if self.found is not None else (0, ())
        return Resumption(step=step, unused=unused, differences=tuple(self.differences), repeatable=repeatable)

    def _require(self, values: Mapping[str, tuple[str, str]], allowed_by: Mapping[str, str]) -> None:
        others = {name: f"{name}: {was} then, {now} now" for name, (was, now) in values.items() if was != now}
        refused = {name: allowed_by[name] for name in others if allowed_by[name] not in self.allowed}
        if refused:
            why = " (the cache was cleared, or another run filled it)" if set(refused) == {identity.REFERENCE} else ""
            raise not_as_it_began(self.folder.path, {others[name]: allowed for name, allowed in refused.items()}, why)
        listed = list(others.values())
        self.differences += [difference for difference in listed if difference not in self.differences]


def restore(trainer: Trainer, checkpoint: Path) -> None:
    """Puts a trainer into the state of a checkpoint; of several ranks all do."""
    trainer.restore(read_state(checkpoint, trainer.to_be_filled(), trainer.ranks))
    before = read_record(checkpoint).identity[identity.ARITHMETIC]
    # Training in bfloat16 dithers the weights, in float32 it does not: a state becomes one of the other kind.
    dithered, dithers = before != "float32", trainer.precision is not torch.float32
    reference = trainer.objective.reference if trainer.objective.moves is not None else None
    for scorer in (trainer.scorer, *([reference] if reference is not None else [])):
        with closed(scorer):
            if dithered and not dithers:
                remove_dither(scorer.model)
            if dithers and not dithered:
                add_dither(scorer.model)


def not_as_it_began(run: Path, refused: Mapping[str, str], why: str = "") -> RunError:
    """The error of a run that is to go on with what was not allowed to be another.

    refused: by which name each difference in words would be allowed. why: what may be the reason, in brackets.
    """
    return RunError(
        f"the run in {run} would not go on as it began ({'; '.join(refused)}){why}. Give it what it had, or allow by "
        f"name what may be another: --allow {' '.join(dict.fromkeys(refused.values()))}."
    )


def _require_no_links(folder: RunFolder) -> None:
    """A run goes on by writing into its files: through links of somebody else's run it would write anywhere."""
    links = sorted(path for path in folder.path.iterdir() if path.is_symlink()) if folder.path.is_dir() else []
    if links:
        raise RunError(
            f"{links[0]} is a link to {links[0].readlink()}, and a run is not gone on with through links: put there "
            "what it leads to."
        )


@contextmanager
def reopened(config: Config, resume: Resume) -> Iterator[ReopenedRun]:
    """A run's folder, to go on in, with its last whole checkpoint. Nothing is changed before it is known to go on.

    Raises:
        RunError: there is no run, it holds links, another process works on it, its settings are others, or all
            checkpoints are damaged.
    """
    folder = RunFolder(resume.run)
    if is_run(folder.path) and not (folder.path / DATA_REPORT).is_file():
        raise RunError(
            f"the run in {folder.path} ended before its work began, so there is nothing to go on from: start it again "
            "with the command that started it."
        )
    _require_no_links(folder)
    with locked(folder.path):
        files = read_run(folder.path)
        found = last_whole(folder.checkpoints, folder.metrics)
        run = ReopenedRun(folder, files, found, resume.allowed)
        run.require_same_settings(config)
        earlier = folder.model.with_name(EARLIER.format(folder.model.name))
        if earlier.is_dir() and not folder.model.exists():
            earlier.rename(folder.model)  # killed between the two moves that replace it
        yield run


def effective_settings(config: Config) -> dict[str, str]:
    """Every setting that decides what a run comes to, as text, by `section.option`; secrets are masked.

    What an earlier stage or a round left is named by its place in the run, wherever that is.
    """
    table = settings_table(config)
    if (left := left_by_stage_before(config)) is not None:
        table["model"]["path"] = f"{STAGES}/{left.as_posix()}"
    if (pairs := pairs_of_round(config)) is not None:
        table["data"]["source"] = pairs.as_posix()
    flat = {
        f"{section}.{option}": str(masked_values(value))
        for section, options in table.items()
        for option, value in options.items()
    }
    return {name: value for name, value in flat.items() if not name.startswith(_WITHOUT_EFFECT)}
