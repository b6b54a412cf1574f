"""Who is told of a run's rows, and whose failure ends it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from tiny_runs import Kept

from tiltlm.runs.rows import EvalRow, TrainRow
from tiltlm.training.observers import MetricsLog, Observers, Row

MEANS = {"chosen_reward": 1.0, "rejected_reward": 0.0, "margin": 1.0, "accuracy": 1.0, "chosen_logp": -1.0}
ONE = TrainRow(
    **MEANS,
    loss=0.5,
    rejected_logp=None,
    step=1,
    epoch=0.25,
    gradient_norm=2.0,
    learning_rate=1e-6,
    examples=4,
    tokens=100,
    seconds=0.1,
)
TWO = EvalRow(
    **MEANS, loss=0.4, rejected_logp=-2.0, step=1, epoch=0.25, examples=5, accuracy_interval=None, seconds=0.2
)
ROWS: tuple[Row, ...] = (ONE, TWO)


class Failing:
    """Raises at the `calls`-th row it is given, and at every further one."""

    def __init__(self, error: BaseException, calls: int = 1) -> None:
        self.given = 0
        self._error, self._calls = error, calls

    def __call__(self, row: Row) -> None:
        self.given += 1
        if self.given >= self._calls:
            raise self._error

    def __repr__(self) -> str:
        return "a tracker of somebody's"


def test_everybody_is_told_in_turn_and_the_required_first() -> None:
    told: list[str] = []
    observers = Observers(
        [lambda row: told.append("file"), lambda row: told.append("console")], [lambda row: told.append("tracker")]
    )
    observers(ONE)
    observers(TWO)
    assert told == ["file", "console", "tracker"] * 2


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("broken"), KeyboardInterrupt("stopped")])
def test_what_a_required_one_raises_ends_the_run(error: BaseException) -> None:
    optional = Kept()
    with pytest.raises(type(error), match=str(error)):
        Observers([Failing(error)], [optional])(ONE)
    assert optional.rows == []


@pytest.mark.parametrize("error", [OSError("no network"), RuntimeError("broken"), AssertionError("odd"), KeyError("k")])
def test_an_optional_one_that_raises_is_dropped_with_a_warning(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    failing, required, other = Failing(error, calls=2), Kept(), Kept()
    observers = Observers([required], [failing, other])
    with caplog.at_level(logging.WARNING):
        for row in (ONE, TWO, ONE, TWO):
            observers(row)
    assert required.rows == other.rows == [ONE, TWO, ONE, TWO]
    assert failing.given == 2
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "a tracker of somebody's failed and is told nothing more" in record.getMessage()
    assert record.exc_info is not None and record.exc_info[1] is error


def test_ctrl_c_within_an_optional_one_is_no_failure_of_it() -> None:
    with pytest.raises(KeyboardInterrupt):
        Observers([], [Failing(KeyboardInterrupt())])(ONE)


def test_two_that_are_equal_are_two() -> None:
    """Only the one that fails is dropped."""

    class Alike(Kept):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Alike)

        def __hash__(self) -> int:
            return 0

    class Broken(Alike):
        def __call__(self, row: Row) -> None:
            raise RuntimeError("broken")

    sound, broken = Alike(), Broken()
    observers = Observers([], [sound, broken])
    observers(ONE)
    observers(TWO)
    assert sound.rows == [ONE, TWO]


def test_every_row_is_on_disk_before_the_next_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for count, row in enumerate((*ROWS, ONE), 1):
            log(row)
            assert path.read_text().count("\n") == count
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["kind"], row["loss"], row["examples"]) for row in rows] == [
        ("train", 0.5, 4),
        ("eval", 0.4, 5),
        ("train", 0.5, 4),
    ]


def test_a_run_that_goes_on_writes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for row in ROWS:
        with MetricsLog(path) as log:
            log(row)
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == ["train", "eval"]
