"""Reads the files of a run's folder; the only door through which the report learns anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tiltlm.errors import RunError
from tiltlm.runs.answers import Comparison
from tiltlm.runs.data_account import DataReport
from tiltlm.runs.earlier_stages import RECIPE, earlier_stages
from tiltlm.runs.environment import Environment
from tiltlm.runs.folder import is_foreign, runs_in
from tiltlm.runs.frontier_record import Frontier
from tiltlm.runs.objective_record import ObjectiveRecord
from tiltlm.runs.outcomes import Evaluation, Outcome, Summary
from tiltlm.runs.pair_origins import PairOrigins
from tiltlm.runs.rows import ROW_KINDS, EvalRow, Metrics, TrainRow
from tiltlm.runs.schema import SCHEMA_KEY, MalformedError, NewerSchemaError, checked, from_json, require_known

Kind = TypeVar("Kind")

FRONTIER = "frontier.json"
"""Written by `tiltlm frontier` into the folder of a run that ended."""

Settings = dict[str, dict[str, object]]
"""The settings as the trainer wrote them: section, option, value."""


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Everything a run wrote. None is what it did not come to, or was told not to do.

    earlier: the stages before this one, where it is the last of several, in the order in which they were trained.
    stage: its name among them; empty where a run has no stages.
    """

    settings: Settings
    environment: Environment
    metrics: Metrics
    data: DataReport
    outcome: Outcome | None
    evaluation: Evaluation | None
    comparison: Comparison | None
    summary: Summary | None
    objective: ObjectiveRecord | None = None
    origins: PairOrigins | None = None
    earlier: tuple[EarlierStage, ...] = ()
    stage: str = ""
    frontier: Frontier | None = None


@dataclass(frozen=True, slots=True)
class EarlierStage:
    """A stage before the last one. place: its folder, seen from that of the whole run, with `/` between names."""

    name: str
    place: str
    files: RunFiles


def read_run(folder: Path) -> RunFiles:
    """Reads the files of a run.

    A last line of `metrics.jsonl` that a crash cut short is left out.

    Raises:
        RunError: the folder or one of its files is missing or damaged; the message says which.
    """
    if not folder.is_dir():
        raise RunError(f"there is no run in {folder}: give the folder of a run that `tiltlm train` has written.")
    if is_foreign(folder):
        raise RunError(f"{folder} is no run, but perhaps a model: give the folder of a run, such as runs/NAME.")
    if (folder / RECIPE).is_file() and not (folder / "config.json").is_file():
        stages = earlier_stages(folder)
        where = f": that of the stage so far is in {stages[-1][1]}" if stages else ""
        raise RunError(
            f"the run in {folder} has not come to its last stage{where}. To go on: tiltlm train --resume {folder}"
        )
    return RunFiles(
        settings=_read_settings(folder / "config.json"),
        environment=_read_json(folder / "environment.json", Environment),
        metrics=_read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else Metrics((), ()),
        data=_read_json(folder / "data_report.json", DataReport),
        outcome=_read_if_there(folder / "outcome.json", Outcome),
        evaluation=_read_if_there(folder / "evaluation.json", Evaluation),
        comparison=_read_if_there(folder / "comparison.json", Comparison),
        origins=_read_if_there(folder / "origins.json", PairOrigins),
        summary=_read_if_there(folder / "summary.json", Summary),
        objective=_read_if_there(folder / "objective.json", ObjectiveRecord),
        earlier=tuple(
            EarlierStage(name, path.relative_to(folder).as_posix(), read_run(path))
            for name, path in earlier_stages(folder)
        ),
        stage=_last_stage(folder / RECIPE),
        frontier=_read_if_there(folder / FRONTIER, Frontier),
    )


def read_evaluations(folder: Path) -> tuple[EvalRow, ...]:
    """The evaluations that a run has recorded so far; none where it has not begun to train.

    Raises:
        RunError: its `metrics.jsonl` is damaged.
    """
    path = folder / "metrics.jsonl"
    return _read_metrics(path).evaluations if path.exists() else ()


def newest_comparable(directory: Path, anew: bool) -> Path:
    """The newest run in a folder whose answers can be compared; damaged runs and other folders are passed over.

    anew: new prompts are to be answered, which takes the trained model; else recorded answers are wanted, or at
    least a model that could give some.

    Raises:
        RunError: there is none.
    """
    runs = [run for run in runs_in(directory) if _is_readable(run)]
    recorded = [run for run in runs if (run / "comparison.json").is_file()]
    with_model = [run for run in runs if has_model(run)]
    found = with_model if anew else recorded or with_model
    if not found:
        raise RunError(
            f"there is no run in {directory} that can be compared: train one with `tiltlm train`, "
            "or give a run's folder."
        )
    return found[0]


def has_model(run: Path) -> bool:
    """Whether the run saved a trained model."""
    configured = any((run / "model" / name).is_file() for name in ("config.json", "adapter_config.json"))
    return configured and any((run / "model").glob("*.safetensors"))


def _is_readable(run: Path) -> bool:
    try:
        read_run(run)
    except RunError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _NamedStage:
    name: str


@dataclass(frozen=True, slots=True)
class _Stages:
    stage: tuple[_NamedStage, ...] = ()


def _last_stage(recipe: Path) -> str:
    """The name of the last stage that a recipe asks for; empty where there is no recipe."""
    asked = _read_if_there(recipe, _Stages)
    return asked.stage[-1].name if asked is not None and asked.stage else ""


def _read_if_there(path: Path, kind: type[Kind]) -> Kind | None:
    return _read_json(path, kind) if path.exists() else None


def _read_json(path: Path, kind: type[Kind]) -> Kind:
    with _naming(path):
        return from_json(kind, _read_bytes(path))


def _read_settings(path: Path) -> Settings:
    # By Python's own reader: a name in them may be one that is not UTF-8, and has to stay what it is.
    with _naming(path):
        try:
            table = json.loads(_read_bytes(path))
        except ValueError as error:
            raise MalformedError(f"it is not valid JSON ({error})") from error
        content = checked(dict[str, object], table)
        require_known(checked(int | None, content.pop(SCHEMA_KEY, None)))  # type: ignore[arg-type]
        return checked(Settings, content)


def _read_metrics(path: Path) -> Metrics:
    lines = _read_bytes(path).split(b"\n")
    # Every whole line ends in a newline, so what stands after the last one was cut short, or is empty.
    tail = lines.pop()
    if _is_json(tail):
        lines.append(tail)
    rows = []
    for number, line in enumerate(lines, start=1):
        with _naming(path, f"line {number}: "):
            rows.append(_read_row(line))
    train = tuple(row for row in rows if isinstance(row, TrainRow))
    return Metrics(train, tuple(row for row in rows if isinstance(row, EvalRow)))


@dataclass(frozen=True, slots=True)
class _RowKind:
    kind: str | None = None


def _read_row(line: bytes) -> TrainRow | EvalRow:
    kind = from_json(_RowKind, line).kind
    if kind not in ROW_KINDS:
        known = " or ".join(f"`{name}`" for name in ROW_KINDS)
        raise MalformedError(f"its kind should be {known}, and is {kind!r:.60}")
    return from_json(ROW_KINDS[kind], line)


@contextmanager
def _naming(path: Path, where: str = "") -> Iterator[None]:
    """Names the file, and the place in it, in what is wrong with it."""
    try:
        yield
    except NewerSchemaError as error:
        raise RunError(
            f"{path.name} of the run in {path.parent} cannot be read: {error}. Read it with that version of tiltlm."
        ) from error
    except MalformedError as error:
        raise RunError(
            f"{path.name} of the run in {path.parent} is damaged: {where}{error}. "
            "Restore the file, or train again with run.overwrite."
        ) from error


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(
            f"cannot read {path.name} of the run in {path.parent} ({error.strerror}): "
            "give the folder of a run that `tiltlm train` has written, or train it again."
        ) from error
