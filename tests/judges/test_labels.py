"""What people said, by file: averaged, and everything that is not understood refused with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiltlm.config.judge_words import judge_word
from tiltlm.errors import DataError
from tiltlm.judges.labels import Labels, Preference


def labels(tmp_path: Path, *rows: Any) -> Labels:
    path = tmp_path / "said.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return Labels(judge_word(f"labels:{path}"))


def test_what_several_people_said_is_averaged(tmp_path: Path) -> None:
    said = labels(
        tmp_path,
        {"id": "a", "first": 0, "second": 1, "winner": 0, "by": "ann"},
        {"id": "a", "first": 1, "second": 0, "winner": 1, "by": "bob"},
        {"id": "a", "first": 1, "second": 0, "winner": "tie"},
        {"id": "a", "first": 2, "second": 0, "winner": 2},
        {"id": "b", "rewards": [1, None, 5]},
        {"id": "b", "rewards": [2, None, None]},
    )
    # For 0 against 1: won, lost, tied. For 0 against 2: lost.
    assert said.preferences("a", 3) == [Preference(0, 1, 0.5, 3), Preference(0, 2, 0.0, 1)]
    assert said.rewards("b", 3) == [1.5, None, 5.0]
    assert said.rewards("a", 3) is None and said.preferences("b", 3) == [] and said.lines == 6


def test_rows_without_labels_and_labels_without_rows_are_counted_and_named(tmp_path: Path) -> None:
    said = labels(tmp_path, *({"id": f"x{n}", "rewards": [1]} for n in range(5)), {"id": "a", "rewards": [1]})
    assert said.remarks(["a", "b"]) == [
        "1 of 2 rows have no labels: b.",
        f"5 ids in {tmp_path / 'said.jsonl'} are of no row: x0, x1, x2 and 2 more.",
    ]
    assert labels(tmp_path, {"id": "a", "rewards": [1]}).remarks(["a"]) == []


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ("{", "not valid JSON"),
        ([1], "a line should be an object"),
        ({"rewards": [1]}, "`id` is"),
        ({"id": "", "rewards": [1]}, "`id` is"),
        ({"id": "a"}, "a line has either `rewards`, or `first`, `second` and `winner`"),
        ({"id": "a", "rewards": [1], "winner": 0}, "a line has either"),
        ({"id": "a", "rewards": [1], "first": 0}, "no meaning beside `rewards`"),
        ({"id": "a", "rewards": 3}, "should be a list"),
        ({"id": "a", "rewards": []}, "should be a list"),
        ({"id": "a", "rewards": [True]}, "finite numbers or null"),
        ('{"id": "a", "rewards": [1e999]}', "finite numbers or null"),
        ({"id": "a", "rewards": [10**400]}, "finite numbers or null"),
        ({"id": "a", "first": 0, "winner": 0}, "`second` should be the place"),
        ({"id": "a", "first": 0, "second": True, "winner": 0}, "`second` should be the place"),
        ({"id": "a", "first": 1, "second": 1, "winner": 1}, "the same answer"),
        ({"id": "a", "first": 0, "second": 1, "winner": 2}, '`winner` is 0, 1 or "tie", not 2'),
        ({"id": "a", "first": 0, "second": 1, "winner": True}, "`winner` is"),
        ({"id": "a", "first": 0, "second": 1, "winner": "ann"}, "not 'ann'"),
        ({"id": "a", "rewards": [1], "score": 1}, "`score` is not known"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(tmp_path: Path, row: Any, detail: str) -> None:
    with pytest.raises(DataError) as error:
        labels(tmp_path, {"id": "z", "rewards": [1]}, row)
    assert "said.jsonl, line 2: " in str(error.value) and detail in str(error.value)


def test_labels_that_do_not_fit_the_answers_are_refused(tmp_path: Path) -> None:
    said = labels(tmp_path, {"id": "a", "first": 0, "second": 4, "winner": 0}, {"id": "b", "rewards": [1, 2]})
    with pytest.raises(DataError, match=r"`a` has answers 0 to 2 in the file, and a line compares 0 and 4"):
        said.preferences("a", 3)
    with pytest.raises(DataError, match=r"`b` has 2 rewards in a line, and 3 answers"):
        said.rewards("b", 3)


def test_no_labels_and_no_file_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no labels"):
        labels(tmp_path, "")
    with pytest.raises(DataError, match="cannot be read"):
        Labels(judge_word(f"labels:{tmp_path / 'none.jsonl'}"))
