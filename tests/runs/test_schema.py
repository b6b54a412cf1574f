"""Run files against their schema: what is written comes back, what is wrong is named, what is newer is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import example_run
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AliasChoices, Field

from tiltlm.errors import RunError
from tiltlm.runs.answers import Comparison
from tiltlm.runs.data_account import DataReport
from tiltlm.runs.environment import Environment
from tiltlm.runs.folder import RunFolder
from tiltlm.runs.outcomes import Evaluation, Outcome, Summary
from tiltlm.runs.rows import EvalRow, TrainRow, metrics_line
from tiltlm.runs.run_files import read_run
from tiltlm.runs.schema import SCHEMA, MalformedError, NewerSchemaError, from_json, versioned


@dataclass(frozen=True)
class Point:
    x: float
    names: list[str]
    y: float | None = None


@dataclass(frozen=True)
class Curve:
    points: list[Point]
    range: tuple[int, int]
    closed: bool | None = None
    marks: dict[str, Point] | None = None
    count: Annotated[int, Field(validation_alias=AliasChoices("count", "number"))] = 0


def read(content: object) -> Curve:
    return from_json(Curve, json.dumps(content).encode())


WHOLE: dict[str, Any] = {"points": [{"x": 1, "names": ["a", "b"]}, {"x": 0.5, "names": []}], "range": [0, 3]}


def test_lists_hold_records_and_records_hold_lists() -> None:
    assert read(WHOLE) == Curve([Point(1.0, ["a", "b"]), Point(0.5, [])], (0, 3))


def test_a_key_that_is_not_declared_is_left_out_and_a_missing_one_that_may_be_is_none() -> None:
    assert read(WHOLE | {"colour": "red"}) == read(WHOLE)
    assert read(WHOLE | {"closed": None}) == read(WHOLE) and read(WHOLE).marks is None


def test_a_key_is_known_by_its_earlier_name_too() -> None:
    assert read(WHOLE | {"number": 3}).count == read(WHOLE | {"count": 3}).count == 3


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"points": [{"x": 1, "names": []}, {"x": 2, "names": [7]}]},
            "`points[1].names[0]` should be a string, and is 7",
        ),
        ({"points": [{"x": True, "names": []}]}, "`points[0].x` should be a number, and is True"),
        ({"points": [{"x": "1", "names": []}]}, "`points[0].x` should be a number, and is '1'"),
        ({"points": [{"names": []}]}, "`points[0].x` is missing; it should be a number"),
        ({"points": [{"x": None, "names": []}]}, "`points[0].x` is missing; it should be a number"),
        ({"points": [{"x": 1, "names": [], "y": "high"}]}, "`points[0].y` should be a number, and is 'high'"),
        ({"points": "many"}, "`points` should be a list, and is 'many'"),
        ({"points": [3]}, "`points[0]` should be a table, and is 3"),
        ({"range": [1]}, "`range` should hold 2 values, and holds 1"),
        ({"range": [1, 2, 3]}, "`range` should hold 2 values, and holds 3"),
        ({"range": [1, 2.5]}, "`range[1]` should be a whole number, and is 2.5"),
        ({"range": None}, "`range` is missing; it should be a list"),
        ({"closed": "yes"}, "`closed` should be true or false, and is 'yes'"),
        ({"closed": 1}, "`closed` should be true or false, and is 1"),
        ({"marks": []}, "`marks` should be a table, and is []"),
        ({"marks": {"a": {"x": []}}}, "`marks.a.x` should be a number, and is []"),
        ({"count": "3"}, "`count` should be a whole number, and is '3'"),
        ({"schema": "new"}, "`schema` should be a whole number, and is 'new'"),
        ({"schema": 0}, "`schema` should be at least 1, and is 0"),
    ],
)
def test_what_is_wrong_is_named(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(MalformedError) as caught:
        read(WHOLE | changed)
    assert str(caught.value) == words


def test_what_is_no_record_at_all() -> None:
    with pytest.raises(MalformedError, match=r"^it should be a table, and is \[\]$"):
        read([])
    with pytest.raises(MalformedError, match=r"^it is not valid JSON \(.*line 1"):
        from_json(Curve, b'{"points": ')


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"cut \ud83d here", r"cut \ud83d here"),
        (r"cut \udc80", r"cut \udc80"),
        (r"\ud83d\ud83d\ude00", "\\ud83d\N{GRINNING FACE}"),
        (r"\ud83d\ude00", "\N{GRINNING FACE}"),
        (r"\\ud83d", r"\ud83d"),
        (r"\\\ud83d", r"\\ud83d"),
        (r"\\\\ud83d\n", "\\\\ud83d\n"),
    ],
)
def test_half_a_surrogate_pair_is_read_as_its_escape(written: str, text: str) -> None:
    content = '{"points": [{"x": 1, "names": ["' + written + '"]}], "range": [0, 3]}'
    assert from_json(Curve, content.encode()).points[0].names == [text]


def test_a_later_schema_is_refused() -> None:
    assert read(versioned(WHOLE)) == read(WHOLE)
    with pytest.raises(NewerSchemaError, match=rf"its schema is {SCHEMA + 1}, and .* none above {SCHEMA}"):
        read(WHOLE | {"schema": SCHEMA + 1, "range": "of another kind"})


# Every file of a run

EARLIER = Path(__file__).parent / "run_of_0_1"
FILES: dict[str, type] = {
    "environment": Environment,
    "data_report": DataReport,
    "outcome": Outcome,
    "evaluation": Evaluation,
    "comparison": Comparison,
    "summary": Summary,
}


@pytest.mark.parametrize("name", [*FILES, "config", "metrics"])
def test_a_file_of_a_later_version_is_refused_in_words(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(EARLIER, tmp_path / "demo"))
    path = folder / ("metrics.jsonl" if name == "metrics" else f"{name}.json")
    text = path.read_text()
    content = json.loads(text.splitlines()[0] if name == "metrics" else text)
    path.write_text(json.dumps({**content, "schema": SCHEMA + 1}) + "\n")
    with pytest.raises(RunError, match=rf"{path.name} of the run in .*demo cannot be read: a later version of tiltlm"):
        read_run(folder)


@pytest.mark.parametrize("name", [*FILES, "config"])
def test_every_file_says_its_schema(tmp_path: Path, name: str) -> None:
    folder = RunFolder.create(tmp_path, "run", overwrite=False)
    folder.write_json(f"{name}.json", {"section": {"option": 1}})
    written = json.loads((folder.path / f"{name}.json").read_text())
    assert next(iter(written.items())) == ("schema", SCHEMA)


numbers = st.floats(allow_nan=False)


st.register_type_strategy(float, numbers)
st.register_type_strategy(object, st.one_of(st.none(), st.booleans(), st.integers(), numbers, st.text()))


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_what_is_written_comes_back(name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    record = data.draw(st.builds(FILES[name]))
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.write_json("record.json", record)
    assert from_json(FILES[name], (folder.path / "record.json").read_bytes()) == record


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.one_of(st.builds(TrainRow), st.builds(EvalRow)), max_size=5))
def test_rows_come_back_in_their_order(
    rows: list[TrainRow | EvalRow], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = example_run.write_run(tmp_path_factory.mktemp("run"))
    (folder / "metrics.jsonl").write_text("".join(map(metrics_line, rows)))
    found = read_run(folder).metrics
    assert found.train == tuple(row for row in rows if isinstance(row, TrainRow))
    assert found.evaluations == tuple(row for row in rows if isinstance(row, EvalRow))


def test_a_row_is_flat_and_says_its_schema_and_kind_first() -> None:
    row = example_run.record(EvalRow, example_run.eval_row(3))
    written = json.loads(metrics_line(dataclasses.replace(row, margin=None, loss=math.inf)))
    assert list(written)[:4] == ["schema", "kind", "step", "epoch"] and written["examples"] == 40
    assert written["margin"] is None and written["loss"] == math.inf


# Files of version 0.1, which had no schema


def test_a_run_of_version_0_1_is_read() -> None:
    run = read_run(EARLIER)
    assert run.settings["loss"] == {"name": "ipo", "beta": 0.1, "label_smoothing": 0.0}
    assert [row.examples for row in run.metrics.train] == [4, 4]
    assert [row.examples for row in run.metrics.evaluations] == [4, 4]
    assert run.evaluation is not None and run.evaluation.figures.examples == 4
    assert run.summary is not None and run.summary.beta == 0.1 and run.summary.loss_settings == {}
    assert run.outcome is not None and run.outcome.status == "completed"
    assert run.comparison is not None and len(run.comparison.prompts) == 2
    assert [row.reason for row in run.data.dropped.list] == ["identical completions"]


def test_the_results_in_the_repository_are_read() -> None:
    results = Path(__file__).parents[2] / "benchmarks" / "results"
    runs = [path.parent for path in sorted(results.glob("*/metrics.jsonl"))]
    assert len(runs) >= 4
    for run in runs:
        for name in ("summary", "environment", "evaluation"):
            content = (run / f"{name}.json").read_bytes()
            record: Any = from_json(FILES[name], content)
            given = {key: value for key, value in json.loads(content).items() if key != "figures"}
            found = json.loads(json.dumps(dataclasses.asdict(record)))
            assert holds(found, given)


def holds(found: Any, given: Any) -> bool:
    """Whether all that was given is there, beside fields that are younger than the file."""
    if isinstance(given, dict) and isinstance(found, dict):
        return all(key in found and holds(found[key], value) for key, value in given.items())
    if isinstance(given, list) and isinstance(found, list):
        return len(found) == len(given) and all(map(holds, found, given))
    return bool(found == given)
