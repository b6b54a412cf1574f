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


THREADS = """trl#2054 axolotl#1616 trl#1677 swift_PR#9925 LLaMA-Factory#4402 trl#3382 unsloth#1178 trl_PR#5710
    direct-preference-optimization#34 trl#744 trl_PR#4723 LLaMA-Factory#913 trl#1962 trl#1107 trl#3168 LLaMA-Factory#798
    direct-preference-optimization#8 #32 trl#800 OpenRLHF#1054 trl#1519 VeOmni_PR#1130 trl#2456 trl#2468
    LLaMA-Factory#5778 transformers_PR#40691 torchtune#2335 trl#878 trl_PR#942 trl#6800 fw-ai/cookbook_PR#388
    mlx-lm-lora_PR#83 trl#3853 vllm_PR#16976 trl#2385 axolotl_PR#2755 transformers#8476 transformers#27458 trl#1189
    trl#2355 trl#1239"""
"""Threads of other trainers whose faults must not be here; `_` stands for a space."""


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


def test_every_thread_of_the_field_has_its_test_or_its_reason() -> None:
    rows = [line.split(" | ") for line in PAGE[PAGE.index("## The field's threads") :].splitlines() if "|" in line][2:]
    cells = [cell.strip("| ") for cell, *_ in rows]
    named = {name for cell in cells for name in cell.split(", ")}
    assert {thread.replace("_", " ") for thread in THREADS.split()} <= named
    for row in rows:
        assert "::test_" in row[2] or row[2].startswith("does not apply: "), row[0]
