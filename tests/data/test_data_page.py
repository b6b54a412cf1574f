"""docs/data.md says what the code does: each documented row is read as its format, and no name is missing there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiny_tokenizers import byte_level

from tiltlm.config import Config, DataConfig
from tiltlm.data.files.file_rows import _COMPRESSIONS, _TABLE_KINDS, _TEXT_KINDS
from tiltlm.data.files.raw_rows import Row
from tiltlm.data.formats import columns, labelled, ranking
from tiltlm.data.formats.messages import _FURTHER
from tiltlm.data.formats.recognition import conversion, recognise_format, require_usable
from tiltlm.data.formats.table import FORMATS
from tiltlm.data.preparation import examine_data, read_data
from tiltlm.data.quality import near_prompts, shingles
from tiltlm.data.quality.findings import LISTED_ROWS, MANY
from tiltlm.data.quality.lengths import TELLING
from tiltlm.data.quality.truncation import MANY_CUT
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.objectives.interface import Needs, Unit
from tiltlm.report.page import LISTED_AT_MOST

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
DOCUMENTED = dict(re.findall(r"^\| `([\w-]+)` \| `(\{.*\})` \|", PAGE, flags=re.MULTILINE))


def test_every_format_has_its_row() -> None:
    assert list(DOCUMENTED) == list(FORMATS), "docs/data.md has a row of each format, in the order of FORMATS"


@pytest.mark.parametrize("name", FORMATS)
def test_a_documented_row_is_read_as_its_format_and_every_column_is_used(name: str) -> None:
    row = Row("f:1", json.loads(DOCUMENTED[name]))
    unit: Unit = "demonstration" if FORMATS[name].unit == "demonstration" else "completion"
    assert recognise_format([row], unit)[0] == name
    converted = conversion(name, "all", unit)(row)
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


# The report


def test_every_finding_has_its_row_and_its_threshold() -> None:
    table = dict(
        re.findall(r"^\| ([a-z][a-z -]+) \| .* \| ([^|]+) \|$", PAGE[PAGE.index("## The data report") :], re.MULTILINE)
    )
    del table["finding"]
    rows = [{"prompt": f"P{n}:", "chosen": " yes", "rejected": " no"} for n in range(9)]
    read = read_data(Config(), Needs(), rows[1:], rows[:2])
    report = examine_data(read, ExampleTokenizer(byte_level(), DataConfig()), lambda done: None)[0].report
    assert report.quality is not None
    assert list(table) == [finding.topic for finding in report.quality.findings]
    own = {"length bias": f"{TELLING:.0%}, where the interval", "truncation": f"{MANY_CUT:.0%} of a part"}
    own["prompts in both splits"] = "never"
    for topic, threshold in table.items():
        assert threshold.startswith(own.get(topic, f"{MANY:.0%}"))


def test_the_figures_of_the_likeness_are_those_of_the_code() -> None:
    assert f"at least {near_prompts.ALIKE:.0%} of their pieces" in PAGE
    assert shingles.LENGTH == 5 and "pieces of five characters" in PAGE
    assert (shingles.COMMON, shingles.COMMON_AT_LEAST) == (1 / 4, 20) and "more than a quarter of the prompts" in PAGE
    sketch = (near_prompts._VALUES, near_prompts._BANDS, near_prompts._BAND)
    assert "{} values, {} bands of {}".format(*sketch) in " ".join(PAGE.split())
    missed = (1 - near_prompts.ALIKE**near_prompts._BAND) ** near_prompts._BANDS
    assert f"probability of {missed:.3f} at a likeness of {near_prompts.ALIKE:.0%}" in " ".join(PAGE.split())
    assert f"{LISTED_ROWS:,} of each finding" in PAGE and f"the first {LISTED_AT_MOST} on" in PAGE
