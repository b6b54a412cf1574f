"""docs/data.md says what the code does: each documented row is read as its format, and no name is missing there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tiltlm.data.files.file_rows import _COMPRESSIONS, _TABLE_KINDS, _TEXT_KINDS
from tiltlm.data.files.raw_rows import Row
from tiltlm.data.formats import columns, labelled, ranking
from tiltlm.data.formats.messages import _FURTHER
from tiltlm.data.formats.recognition import conversion, recognise_format, require_usable
from tiltlm.data.formats.table import FORMATS

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
DOCUMENTED = dict(re.findall(r"^\| `([\w-]+)` \| `(\{.*\})` \|", PAGE, flags=re.MULTILINE))


def test_every_format_has_its_row() -> None:
    assert list(DOCUMENTED) == list(FORMATS), "docs/data.md has a row of each format, in the order of FORMATS"


@pytest.mark.parametrize("name", FORMATS)
def test_a_documented_row_is_read_as_its_format_and_every_column_is_used(name: str) -> None:
    row = Row("f:1", json.loads(DOCUMENTED[name]))
    assert recognise_format([row])[0] == name
    converted = conversion(name, "all")(row)
    assert converted.examples and converted.unused == [] and converted.remarks == []
    for pair in converted.examples:
        require_usable(pair)


@pytest.mark.parametrize(
    "names",
    [
        ranking.LIST_COLUMNS,
        labelled.LABELS,
        [*labelled.LABEL_COLUMNS, *labelled.TURNED_COLUMNS, *labelled.COMPLETION_COLUMNS],
        ranking.SIGNS,
        ranking.BEST_COLUMNS,
        ranking._TEXT_KEYS,
        _FURTHER,
        _TEXT_KINDS,
        _TABLE_KINDS,
        _COMPRESSIONS,
        [name for others in columns._OTHERS.values() for name in others],
        [word for sides in columns._SIDES for word in sides if not re.search("_(messages|conv|answer|compl)", word)],
    ],
)
def test_every_known_name_is_on_the_page(names: list[str]) -> None:
    assert [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", PAGE)] == []
