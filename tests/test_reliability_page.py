"""docs/reliability.md names tests, scripts and files for what it promises: they are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)", PAGE)))
FILES = sorted(set(re.findall(r"`(?:python )?((?:tests|scripts|benchmarks|src|docs|configs)/[\w./-]+)", PAGE)))


@cache
def functions_of(path: Path) -> frozenset[str]:
    """Names of the test functions of a file, those in classes too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


@pytest.mark.parametrize(("file", "name"), TESTS, ids=lambda part: part)
def test_every_test_that_is_named_is_there(file: str, name: str) -> None:
    assert name in functions_of(ROOT / file)


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_is_named_is_there(name: str) -> None:
    assert (ROOT / name.rstrip(".")).exists()


def test_the_page_names_tests() -> None:
    """Otherwise nothing above would look at anything."""
    assert TESTS
