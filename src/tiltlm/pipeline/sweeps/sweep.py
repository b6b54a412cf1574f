"""A sweep: ordinary runs one after another in one process, which share caches, and one page about all of them."""

from __future__ import annotations

import dataclasses
import gc
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tiltlm.config.resuming import Resume
from tiltlm.config.sweep_plan import SweepPlan, in_folder, member_name, metric_named, shared_settings
from tiltlm.config.sweeping import Combination, Range, Values, described
from tiltlm.config.tables import config_from_dict
from tiltlm.errors import ConfigError, TiltlmError
from tiltlm.pipeline.member_reporter import MemberReporter
from tiltlm.pipeline.preflight import BESIDES_THE_MODEL, before_work, prepare_model
from tiltlm.pipeline.prepare import NOTHING, Given
from tiltlm.pipeline.ranks_at_work import DATA_REPORT
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.run import train
from tiltlm.pipeline.sweeps.trials import TrialSearch, Watch, require_optuna
from tiltlm.report.sweep_page import write_sweep_report
from tiltlm.report.wording import count, duration
from tiltlm.runs.lock import locked
from tiltlm.runs.outcomes import Summary
from tiltlm.runs.sweep_folder import ENDED, MemberRecord, Status, SweepFolder, SweepRecord, SweptRange
from tiltlm.storage.space import require_space, weight_bytes
from tiltlm.text.masking import masked, masked_command
from tiltlm.training.observers import Observer
from tiltlm.training.stop import StopRequest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep that ended, or was interrupted: its folder, and how its members went."""

    folder: Path
    record: SweepRecord

    @property
    def page(self) -> Path:
        return self.folder / "report.html"

    @property
    def failed(self) -> tuple[MemberRecord, ...]:
        return tuple(member for member in self.record.members if member.status == "failed")

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return len(self.record.members) >= self.record.planned and all(
            member.status in ENDED for member in self.record.members
        )


def planned_members(plan: SweepPlan) -> tuple[list[Combination], list[str]]:
    """The members of a plan, as far as they are known before the work, and what is to be said of it.

    Raises:
        ConfigError: a combination cannot be trained, or the plan makes no sense.
        PackageError: trials need a package that is not installed.
    """
    if plan.trials is not None:
        require_optuna()
    found, notes = plan.corners()
    return (found if plan.trials is None else []), notes


def start_sweep(
    plan: SweepPlan,
    command: Sequence[str],
    reporter: Reporter,
    observers: tuple[Observer, ...] = (),
    given: Given = NOTHING,
) -> Sweep:
    """Runs a sweep in DIRECTORY/NAME of the shared settings.

    Args:
        command: what was typed, for the record.
        observers: are given every row of every member.
        given: rows in memory, in place of the data that the settings name.

    Raises:
        TiltlmError: before any work, with what is wrong; what a member fails of is in its record.
    """
    found, notes = planned_members(plan)
    run = plan.base.run
    if run.overwrite:
        raise ConfigError(
            "run.overwrite has no effect on a sweep, which replaces nothing: remove the old one yourself."
        )
    path = Path(run.directory) / run.name
    SweepFolder.require_free(path)
    members = tuple(
        MemberRecord(number=number, name=member_name(number, one.settings), settings=one.settings)
        for number, one in enumerate(found, start=1)
    )
    for one, member in zip(found, members, strict=True):
        before_work(in_folder(one.config, path / "members", member.name), reporter)
    weights = weight_bytes(prepare_model(plan.base, reporter))
    require_space(path, (plan.trials or len(members)) * (weights + BESIDES_THE_MODEL), "the sweep", "--run.directory")
    record = SweepRecord(
        name=run.name,
        settings=shared_settings(plan.base),
        values=plan.values,
        ranges={
            option: SweptRange(low=ends.low, high=ends.high, whole=ends.whole, logarithmic=ends.logarithmic)
            for option, ends in plan.ranges.items()
        },
        trials=plan.trials,
        metric=plan.metric,
        notes=tuple(notes),
        command=masked_command(command),
        members=members,
    )
    folder = SweepFolder.create(path)
    with locked(folder.path, "sweep"):
        folder.write(record)
        for note in notes:
            reporter.say(f"  note: {note}")
        return _Work(folder, record, reporter, observers, given).run()


def resume_sweep(
    path: Path,
    reporter: Reporter,
    observers: tuple[Observer, ...] = (),
    given: Given = NOTHING,
    retry_failed: bool = False,
) -> Sweep:
    """Goes on with a sweep where it was: members that ended are left as they are.

    retry_failed: begin those that failed anew.

    Raises:
        RunError: there is no sweep, or another process is at work on it.
    """
    folder = SweepFolder(path)
    folder.read()  # says that there is none, before a lock is put there
    with locked(folder.path, "sweep"):
        record = folder.read()
        for member in record.members if retry_failed else ():
            if member.status == "failed":
                record = record.with_member(dataclasses.replace(member, status="waiting", message=None))
        if record.trials is not None:
            require_optuna()
        return _Work(folder, record, reporter, observers, given).run()


def plan_of(record: SweepRecord) -> SweepPlan:
    """The plan that a sweep was started with."""
    ranges = {option: Range(ends.low, ends.high, ends.whole) for option, ends in record.ranges.items()}
    swept: dict[str, Values] = {**record.values, **ranges}
    return SweepPlan(config_from_dict(record.settings), swept, record.trials, metric_named(record.metric))


class _Work:
    """Runs the members that are left, and keeps the record as they go."""

    def __init__(
        self,
        folder: SweepFolder,
        record: SweepRecord,
        reporter: Reporter,
        observers: tuple[Observer, ...],
        given: Given,
    ) -> None:
        self._folder, self._record, self._reporter = folder, record, reporter
        self._observers, self._given = observers, given
        self._plan = plan_of(record)
        self._search = TrialSearch(self._plan, folder) if record.trials is not None else None

    def run(self) -> Sweep:
        """Runs all that is left, or until it is interrupted; the page is written either way."""
        try:
            while (member := self._next()) is not None:
                if not self._run(member):
                    break
        except KeyboardInterrupt:
            pass
        sweep = Sweep(self._folder.path, self._record)
        write_sweep_report(self._folder.path)
        self._reporter.say(f"The page of the sweep is {sweep.page}.")
        if not sweep.complete:
            self._reporter.say(f"To go on: tiltlm sweep --resume {sweep.folder}")
        return sweep

    def _next(self) -> MemberRecord | None:
        """The first member with which something is left to do; a trial is drawn when all before it have ended."""
        left = next((member for member in self._record.members if member.status not in ENDED), None)
        if left is not None or self._search is None or len(self._record.members) >= self._record.planned:
            return left
        number = len(self._record.members) + 1
        drawn = self._search.draw(number, self._record.members)
        if drawn is None:
            self._reporter.say("  every combination was drawn: there are no more members")
            self._keep(dataclasses.replace(self._record, trials=len(self._record.members)))
            return None
        return MemberRecord(number=number, name=member_name(number, drawn), settings=drawn)

    def _run(self, member: MemberRecord) -> bool:
        """Runs a member. Whether the sweep goes on."""
        started = time.perf_counter()
        self._reporter.say(f"member {member.number} of {self._record.planned}: {described(member.settings)}")
        self._keep(self._record.with_member(dataclasses.replace(member, status="running")))
        stop = StopRequest()
        watch = self._search.watch(member, self._record.members, stop) if self._search is not None else None
        try:
            ended = self._trained(member, stop, watch)
        except KeyboardInterrupt:
            self._keep(self._record.with_member(dataclasses.replace(member, status="interrupted")))
            raise
        except Exception as error:
            # Whatever one member dies of, the others are worth having; a bug is told whole, for whoever mends it.
            if not isinstance(error, TiltlmError):
                logger.warning("member %d failed", member.number, exc_info=True)
            message = masked(str(error) or type(error).__name__)
            ended = dataclasses.replace(member, status="failed", message=message)
        _release_memory()
        ended = dataclasses.replace(ended, seconds=ended.seconds or time.perf_counter() - started)
        self._keep(self._record.with_member(ended))
        self._say(ended)
        return ended.status != "interrupted"

    def _trained(self, member: MemberRecord, stop: StopRequest, watch: Watch | None) -> MemberRecord:
        """The member with how it ended."""
        config = in_folder(self._plan.combination(member.settings).config, self._folder.members, member.name)
        place = self._folder.member(member)
        reporter = MemberReporter(
            self._reporter, f"{member.number}/{self._record.planned}", self._folder.path / "log.txt"
        )
        begun = member.status in ("running", "interrupted") and (place / DATA_REPORT).is_file()
        resume = Resume(place) if begun else None
        if not begun and place.exists():
            config = dataclasses.replace(config, run=dataclasses.replace(config.run, overwrite=True))
        observers: tuple[Observer, ...] = (*self._observers, *((watch,) if watch is not None else ()))
        command = ("tiltlm", "sweep", "--resume", str(self._folder.path))
        run = train(config, command, reporter, observers, self._given, resume, stop=stop)
        pruned = watch is not None and watch.pruned and not stop.signalled
        status: Status = "completed" if run.summary.completed else "pruned" if pruned else "interrupted"
        return dataclasses.replace(
            member, status=status, seconds=run.summary.seconds, value=value_of(run.summary, self._record.metric)
        )

    def _say(self, member: MemberRecord) -> None:
        words = [member.status] + ([member.message] if member.message else [])
        left = self._record.planned - sum(one.status in ENDED for one in self._record.members)
        times = [one.seconds for one in self._record.members if one.status == "completed" and one.seconds is not None]
        if left and times and member.status != "interrupted":
            words.append(f"{count(left, 'member')} left, about {duration(left * sum(times) / len(times))}")
        self._reporter.say(f"  {'; '.join(words)}")

    def _keep(self, record: SweepRecord) -> None:
        self._record = record
        self._folder.write(record)


def value_of(summary: Summary, metric: str) -> float | None:
    """The held-out figure of the saved model that trials look for the best of."""
    figures = {"accuracy": summary.eval_accuracy, "margin": summary.eval_margin, "loss": summary.eval_loss}
    return figures[metric]


def _release_memory() -> None:
    """Lets go of what a member held: models are in cycles, which Python frees when it comes to it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
