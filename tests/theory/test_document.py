"""The document, its sources, its figures and the code that cites it agree."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typst

import build
from experiments.table import EXPERIMENTS, Experiment

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"theorem": "Theorem", "proposition": "Proposition", "corollary": "Corollary"}
STATEMENT = re.compile(r"(Theorem|Proposition|Corollary)\s+(\d+)\s+\(([a-z-]+)\)")
EQUATION = re.compile(r"\beq\.\s+(\d+)\s+\(([a-z-]+)\)")
REBUILD = "run `make theory` and commit what it writes"
OF_REAL_MODELS = ("imdb",)
"""Figures that a benchmark draws, as no experiment of a listed world could."""


@dataclasses.dataclass(frozen=True)
class Numbers:
    """What has a number in a document, in order; statements as (kind, name)."""

    equations: list[tuple[str, int]]
    statements: list[tuple[tuple[str, str], int]]
    figures: list[str]
    pages: int


def numbers(source: Path) -> Numbers:
    found = json.loads(
        typst.query(str(source), "<numbers>", field="value", one=True, root=str(ROOT), ignore_system_fonts=True)
    )
    statements = [(label.split(":"), number) for label, number in found["statements"]]
    return Numbers(
        [(name, number) for name, number in found["equations"]],
        [((KINDS[kind], name), number) for (kind, name), number in statements],
        found["figures"],
        found["pages"],
    )


@pytest.fixture(scope="module")
def english() -> Numbers:
    return numbers(build.DOCUMENTS["theory.pdf"])


@pytest.mark.parametrize("name", build.DOCUMENTS)
def test_the_pdf_is_what_the_sources_give(name: str) -> None:
    assert (ROOT / name).read_bytes() == build.pdf(build.DOCUMENTS[name]), f"{name} is stale: {REBUILD}"


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda e: e.name)
def test_the_figure_is_what_the_results_give(experiment: Experiment) -> None:
    drawn = build.figure_svg(experiment, build.stored(experiment))
    assert build.figure_path(experiment).read_text(encoding="utf-8") == drawn, f"a stale figure: {REBUILD}"


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda e: e.name)
def test_the_results_are_what_the_experiment_gives(experiment: Experiment) -> None:
    again, stored = build.measured(experiment), build.stored(experiment)
    assert_close(dataclasses.asdict(again), dataclasses.asdict(stored), experiment.name)


def assert_close(found: Any, expected: Any, where: str) -> None:
    """Equal, with numbers to a thousandth: other processors round otherwise, and minimisers stop a little elsewhere."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_close(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_close(one, other, f"{where}[{index}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6), where
    else:
        assert found == expected, where


def test_both_languages_number_alike_and_are_of_a_length_to_read(english: Numbers) -> None:
    russian = numbers(build.DOCUMENTS["theory.ru.pdf"])
    assert russian.equations == english.equations
    assert russian.statements == english.statements
    assert russian.figures == english.figures
    assert all(12 <= document.pages <= 20 for document in (english, russian))


def test_every_equation_and_figure_is_shown(english: Numbers) -> None:
    defined = re.findall(r"^#let ([a-z-]+) = numbered\(\"([a-z-]+)\"", equations_source(), flags=re.MULTILINE)
    assert [name for name, _ in defined] == [label for _, label in defined]
    assert [name for name, _ in defined] == [name for name, _ in english.equations]
    assert sorted(english.figures) == sorted([*EXPERIMENTS, *OF_REAL_MODELS])


def equations_source() -> str:
    return (ROOT / "theory" / "equations.typ").read_text(encoding="utf-8")


def citing_files() -> list[Path]:
    folders = [ROOT / "src", ROOT / "theory", ROOT / "tests", ROOT / "benchmarks"]
    files = [file for folder in folders for file in folder.rglob("*.py") if file != Path(__file__)]
    return [*files, *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("file", citing_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_what_is_cited_exists(file: Path, english: Numbers) -> None:
    text = file.read_text(encoding="utf-8")
    equations, statements = dict(english.equations), dict(english.statements)
    for number, name in EQUATION.findall(text):
        assert equations.get(name) == int(number), f"eq. {number} ({name}) is {equations.get(name)} in theory.pdf"
    for kind, number, name in STATEMENT.findall(text):
        assert statements.get((kind, name)) == int(number), f"{kind} {number} ({name}) is not in theory.pdf"
    unnamed = re.findall(r"theory\.pdf,\s+(?:eq\.|Theorem|Proposition|Corollary)\s+\d+(?!\d|\s+\()", text)
    assert not unnamed, f"citations of theory.pdf without the name of what they cite: {unnamed}"


def test_the_losses_cite_their_equations() -> None:
    families = (ROOT / "src/tiltlm/objectives").glob("*.py")
    cited = {name for family in families for _, name in EQUATION.findall(family.read_text(encoding="utf-8"))}
    assert {"margin", "implicit-reward", "dpo", "gradient", "smoothed", "ipo"} <= cited


def test_every_statement_is_a_test(english: Numbers) -> None:
    tests = (Path(__file__).parent / "test_statements.py").read_text(encoding="utf-8")
    tested = {(kind, name) for kind, _, name in re.findall(r'^    """' + STATEMENT.pattern, tests, flags=re.MULTILINE)}
    assert tested == {statement for statement, _ in english.statements}
