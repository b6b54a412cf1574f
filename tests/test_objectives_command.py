"""`tiltlm objectives`: all of them, one of them, and a name that is none."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest

from tiltlm.cli import main
from tiltlm.cli.objectives_command import show_objective
from tiltlm.cli.safe_console import SafeConsole
from tiltlm.objectives import ALIASES, OBJECTIVES
from tiltlm.objectives.in_words import grouped, needed, settings_in_words
from tiltlm.objectives.interface import Objective

every = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)


def shown(objective: Objective, width: int = 1000) -> str:
    console = SafeConsole(file=io.StringIO(), width=width, highlight=False, emoji=False)
    show_objective(objective, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_all_are_listed_once_with_their_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["objectives"]) == 0
    text = capsys.readouterr().out
    names = re.findall(r"^(\w+)  +\S", text, flags=re.MULTILINE)
    assert sorted(names) == sorted(OBJECTIVES) and names[0] == "sigmoid"
    said = "".join(text.split())
    assert all("".join(objective.what.split()) in said for objective in OBJECTIVES.values())
    assert "Pairs, with a reference" in text and "Pairs, without a reference" in text


@every
def test_one_has_its_equation_needs_settings_and_source(objective: Objective) -> None:
    text = shown(objective)
    docstring = objective.loss.__doc__ or ""
    equations = [line.strip() for line in docstring.splitlines() if line.strip().startswith("loss = ")]
    assert equations and all(equation in text for equation in equations), "indent the equation, on lines of its own"
    assert objective.source is not None and objective.source in text
    assert ", ".join(needed(objective)) in text
    for setting in settings_in_words(objective):
        assert f"loss.{setting.name} = {setting.default}" in text
        assert setting.allowed.replace("`", "") in text and setting.text in text
    assert all(alias in text for alias in objective.aliases)
    assert f"tiltlm train --loss.name {objective.name}" in text
    assert re.search(r"code: .*\.py:\d+", text)


@every
def test_it_fits_a_narrow_terminal(objective: Objective) -> None:
    lines = shown(objective, width=60).splitlines()
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize("width", [40, 60, 200])
def test_paragraphs_are_broken_where_the_terminal_ends_and_words_are_kept(width: int) -> None:
    said = " ".join(shown(OBJECTIVES["sigmoid"], width).split())
    assert "its gradient weighs a pair by the probability that the implicit reward" in said.lower()


@pytest.mark.parametrize(
    ("name", "meant"), [("hinje", "hinge"), ("dpo", "sigmoid"), ("DPO", "sigmoid"), ("sig", None), ("zzzz", None)]
)
def test_an_unknown_name_gets_the_nearest(name: str, meant: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["objectives", name]) == 2
    shown_text = capsys.readouterr()
    assert shown_text.out == ""
    assert shown_text.err.startswith(f"tiltlm: there is no objective `{name}`.")
    assert meant is None or f"Did you mean `{meant}`?" in shown_text.err
    assert shown_text.err.endswith("tiltlm objectives lists all.\n")


def test_what_others_call_an_objective_leads_to_it() -> None:
    assert {"dpo", "rdpo", "dpo_norm", "exo", "slic_hf", "dpo_positive"} <= set(ALIASES)


def test_it_starts_without_torch() -> None:
    program = (
        "import sys, tiltlm.cli.commands\n"
        "codes = [tiltlm.cli.commands.main(words) for words in (['objectives'], ['objectives', 'sigmoid'])]\n"
        "print(codes, [name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[0, 0] []\n")


def test_groups_hold_every_objective_once() -> None:
    names = [objective.name for members in grouped(OBJECTIVES.values()).values() for objective in members]
    assert sorted(names) == sorted(OBJECTIVES)
