"""docs/objectives.md says what the table has, and the objective that it writes out is one."""

from __future__ import annotations

import doctest
import importlib
import re
import runpy
import types
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass
from scored_examples import losses, pairs

import tiltlm.api.loss_values
from tiltlm.objectives import OBJECTIVES, gathered
from tiltlm.objectives.dpo import SIGMOID
from tiltlm.objectives.interface import SETTINGS, Needs, Objective

PAGE = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "make_objectives_table.py"))


def test_the_table_is_that_of_the_code() -> None:
    assert SCRIPT["page"]() == PAGE, "run `python scripts/make_objectives_table.py`"


def test_a_row_has_needs_and_the_ranges_and_choices_of_settings() -> None:
    @dataclass(frozen=True, config=SETTINGS)
    class Settings:
        share: Annotated[float, Field(ge=0, lt=0.5)] = 0.25
        kind: Literal["soft", "hard"] = "soft"

    made_up = Objective("made_up", SIGMOID.loss, Settings, Needs(coupled=True), "For a test.")
    assert SCRIPT["row"](made_up) == (
        "| `made_up` | For a test. | pairs, a reference, the whole batch at once | `share` 0.25 (from 0, below 0.5), "
        "`kind` soft (`soft` or `hard`) | [arXiv 2305.18290](https://arxiv.org/abs/2305.18290) |"
    )


def test_every_objective_has_its_row_and_those_that_are_recommended_are_there() -> None:
    for name in OBJECTIVES:
        assert PAGE.count(f"\n| `{name}` |") >= 1
    choosing = PAGE.partition("## Which to choose")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \|", choosing, flags=re.MULTILINE)[2:]
    recommended = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert recommended - {"label_smoothing"} <= set(OBJECTIVES)


def test_the_values_are_those_given() -> None:
    examples = doctest.DocTestParser().get_doctest(
        BLOCKS[0].replace(">>> import tiltlm\n", ""),
        {"tiltlm": types.SimpleNamespace(loss=tiltlm.api.loss_values.loss)},
        "objectives.md",
        None,
        None,
    )
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples).failed == 0


def test_the_objective_written_out_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """max(0, 1 - 0.1 * 7)^2 = 0.09; and settled at 10 nats."""
    package = tmp_path / "written_out_objectives"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "truncated_quadratic.py").write_text(BLOCKS[-1], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    (objective,) = gathered(package.name, [str(package)]).values()
    found = losses(objective, pairs([-10, 0], [-30, -10], [-12, 0], [-25, 0]))
    assert found == pytest.approx([0.09, 0.0])
