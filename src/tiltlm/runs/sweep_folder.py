"""A sweep's folder: `sweep.json`, its plan and how far it came, and the runs of its members below `members/`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tiltlm.errors import RunError
from tiltlm.runs.folder import RunFolder, is_run
from tiltlm.runs.schema import MalformedError, NewerSchemaError, from_json

MARKER = ".tiltlm-sweep"
"""The file by which a sweep's folder is known, written before any other."""
_MARKER_TEXT = "A sweep of tiltlm: its plan is in sweep.json, its runs are in members/.\n"
RECORD = "sweep.json"

Status = Literal["waiting", "running", "completed", "pruned", "interrupted", "failed"]
ENDED = frozenset({"completed", "pruned", "failed"})
"""Statuses of members with which nothing is left to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRecord:
    """One run of a sweep.

    name: of its folder in `members/`. settings: the swept options that its objective reads, with their values.
    status: `waiting` until it begins; `running` then, also where its process was killed; `pruned`: stopped, as it did
        worse than the others had by then. message: what ended one that failed.
    value: the metric that trials look for the best of. seconds: how long it took.
    """

    number: int
    name: str
    settings: dict[str, Any]
    status: Status = "waiting"
    message: str | None = None
    value: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptRange:
    """What trials draw an option from; logarithmic: evenly by its logarithm."""

    low: float
    high: float
    whole: bool
    logarithmic: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRecord:
    """`sweep.json`.

    settings: those that all members share, by section. values, ranges: what is swept, by option.
    trials: how many members are drawn; None where every combination is one. metric: what trials are to make the best
    of. seed: of the draws. notes: what was said of the plan. command: what was typed.
    """

    name: str
    settings: dict[str, dict[str, Any]]
    values: dict[str, tuple[Any, ...]]
    ranges: dict[str, SweptRange] = dataclasses.field(default_factory=dict)
    trials: int | None = None
    metric: str = "accuracy"
    notes: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    members: tuple[MemberRecord, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """The swept options."""
        return (*self.values, *self.ranges)

    @property
    def planned(self) -> int:
        """How many members there will be."""
        return len(self.members) if self.trials is None else self.trials

    def with_member(self, member: MemberRecord) -> SweepRecord:
        """The record with one member's state replaced, or with a further member."""
        others = tuple(member if one.number == member.number else one for one in self.members)
        if all(one.number != member.number for one in self.members):
            others = (*others, member)
        return dataclasses.replace(self, members=others)


@dataclass(frozen=True, slots=True)
class SweepFolder:
    """`DIRECTORY/NAME` of a sweep."""

    path: Path

    @staticmethod
    def require_free(path: Path) -> None:
        """Says at once whether `create` would refuse.

        Raises:
            RunError: it is there and holds something, or cannot be made.
        """
        if is_sweep(path):
            raise RunError(
                f"there is a sweep in {path} already: give this one another name (--run.name), or go on with that one "
                f"(tiltlm sweep --resume {path})."
            )
        RunFolder.require_free(path.parent, path.name, overwrite=False)
        if is_run(path):
            raise RunError(f"{path} is a run: give the sweep another name (--run.name).")

    @staticmethod
    def create(path: Path) -> SweepFolder:
        """Makes the folder.

        Raises:
            RunError: as `require_free`.
        """
        SweepFolder.require_free(path)
        try:
            (path / "members").mkdir(parents=True, exist_ok=True)
            with (path / MARKER).open("x", encoding="utf-8") as file:
                file.write(_MARKER_TEXT)
        except FileExistsError as error:
            raise RunError(f"another sweep was started in {path} just now: give this one another name.") from error
        except OSError as error:
            raise RunError(f"cannot make the sweep's folder {path}: {error.strerror or error}.") from error
        return SweepFolder(path)

    @property
    def members(self) -> Path:
        return self.path / "members"

    def member(self, record: MemberRecord) -> Path:
        """The folder of a member's run."""
        return self.members / record.name

    def write(self, record: SweepRecord) -> None:
        """Writes `sweep.json`: the old one or the whole new one is there, whatever happens."""
        RunFolder(self.path).write_json(RECORD, record)

    def read(self) -> SweepRecord:
        """Reads `sweep.json`.

        Raises:
            RunError: it is missing or damaged.
        """
        path = self.path / RECORD
        try:
            return from_json(SweepRecord, path.read_bytes())
        except OSError as error:
            why = "it was stopped before it had a plan" if is_sweep(self.path) else "it is no sweep"
            raise RunError(f"there is no {RECORD} in {self.path}: {why}. Start one with tiltlm sweep.") from error
        except (MalformedError, NewerSchemaError) as error:
            raise RunError(f"{path} cannot be read: {error}.") from error


def is_sweep(path: Path) -> bool:
    """Whether the folder was made by `SweepFolder.create`."""
    return path.is_dir() and (path / MARKER).is_file()


def sweep_of(run: Path) -> str | None:
    """The name of the sweep that a run is a member of; None where it is of none."""
    sweep = run.absolute().parent.parent
    return sweep.name if is_sweep(sweep) else None
