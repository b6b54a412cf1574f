"""docs/objectives.md says what the table has, and the objective that it writes out is one."""

from __future__ import annotations

import doctest
import importlib
import re
import types
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from scored_examples import losses, pairs

import tiltlm.api_loss
from tiltlm.objectives import OBJECTIVES, gathered
from tiltlm.objectives.interface import Needs, Objective

PAGE = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
RANGES = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "up to"}


def needed(needs: Needs) -> str:
    named = {
        "pairs": needs.unit == "pair",
        "single answers": needs.unit == "completion",
        "a reference": needs.reference,
        "numbers of tokens": needs.counts,
        "values of single tokens": needs.tokens,
        "the whole batch at once": needs.coupled,
        "mismatched answers": needs.mismatched,
    }
    return ", ".join(words for words, holds in named.items() if holds)


def row(objective: Objective) -> str:
    settings = []
    for name, field in TypeAdapter(objective.settings).json_schema()["properties"].items():
        bounds = [f"{words} {field[bound]:g}" for bound, words in RANGES.items() if bound in field]
        settings.append(f"`{name}` {field['default']} ({', '.join(bounds)})")
    return f"| `{objective.name}` | {objective.what} | {needed(objective.needs)} | {', '.join(settings)} |"


def test_the_table_is_that_of_the_code() -> None:
    assert re.findall(r"^\| `\w+` \|.*$", PAGE, flags=re.MULTILINE) == [row(one) for one in OBJECTIVES.values()]


def test_the_values_are_those_given() -> None:
    examples = doctest.DocTestParser().get_doctest(
        BLOCKS[0].replace(">>> import tiltlm\n", ""),
        {"tiltlm": types.SimpleNamespace(loss=tiltlm.api_loss.loss)},
        "objectives.md",
        None,
        None,
    )
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples).failed == 0


def test_the_objective_written_out_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """max(0, 1 - 0.1 * 7) = 0.3; and settled at 10 nats."""
    package = tmp_path / "written_out_objectives"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "hinge.py").write_text(BLOCKS[1], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    (objective,) = gathered(package.name, [str(package)]).values()
    found = losses(objective, pairs([-10, 0], [-30, -10], [-12, 0], [-25, 0]))
    assert found == pytest.approx([0.3, 0.0])
