"""Reads the files of a run's folder; the only door through which the report learns anything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tiltlm.errors import RunError
from tiltlm.runs.decoding import MalformedError, decode
from tiltlm.runs.folder import is_foreign, runs_in
from tiltlm.runs.records import (
    Comparison,
    DataReport,
    Environment,
    EvalRow,
    Evaluation,
    Metrics,
    Outcome,
    Settings,
    Summary,
    TrainRow,
)

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Everything a run wrote. None is what it did not come to, or was told not to do."""

    settings: Settings
    environment: Environment
    metrics: Metrics
    data: DataReport
    outcome: Outcome | None
    evaluation: Evaluation | None
    comparison: Comparison | None
    summary: Summary | None


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
    return RunFiles(
        settings=_read_json(folder / "config.json", Settings),
        environment=_read_json(folder / "environment.json", Environment),
        metrics=_read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else Metrics((), ()),
        data=_read_json(folder / "data_report.json", DataReport),
        outcome=_read_if_there(folder / "outcome.json", Outcome),
        evaluation=_read_if_there(folder / "evaluation.json", Evaluation),
        comparison=_read_if_there(folder / "comparison.json", Comparison),
        summary=_read_if_there(folder / "summary.json", Summary),
    )


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
    return (run / "model" / "config.json").is_file() and any((run / "model").glob("*.safetensors"))


def _is_readable(run: Path) -> bool:
    try:
        read_run(run)
    except RunError:
        return False
    return True


def _read_if_there(path: Path, kind: type[Kind]) -> Kind | None:
    return _read_json(path, kind) if path.exists() else None


def _read_json(path: Path, kind: type[Kind]) -> Kind:
    try:
        return decode(kind, json.loads(_read_bytes(path)))
    except MalformedError as error:
        raise _damaged(path, str(error)) from error
    except ValueError as error:
        raise _damaged(path, f"it is not valid JSON ({error})") from error


def _read_metrics(path: Path) -> Metrics:
    lines = _read_bytes(path).split(b"\n")
    # Every whole line ends in a newline, so what stands after the last one was cut short, or is empty.
    tail = lines.pop()
    train: list[TrainRow] = []
    evaluations: list[EvalRow] = []
    if _is_json(tail):
        lines.append(tail)
    for number, line in enumerate(lines, start=1):
        try:
            row = decode(dict[str, object], json.loads(line))
            if row.get("kind") == "train":
                train.append(decode(TrainRow, row))
            elif row.get("kind") == "eval":
                evaluations.append(decode(EvalRow, row))
            else:
                raise MalformedError(f"its kind should be `train` or `eval`, and is {row.get('kind')!r:.60}")
        except MalformedError as error:
            raise _damaged(path, f"line {number}: {error}") from error
        except ValueError as error:
            raise _damaged(path, f"line {number} is not valid JSON ({error})") from error
    return Metrics(tuple(train), tuple(evaluations))


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


def _damaged(path: Path, what: str) -> RunError:
    return RunError(
        f"{path.name} of the run in {path.parent} is damaged: {what}. "
        "Restore the file, or train again with run.overwrite."
    )
