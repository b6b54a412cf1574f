"""What docs/judges.md shows is what there is."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from tiltlm.cli.judge_arguments import Judge
from tiltlm.config import HubConfig
from tiltlm.config.judge_words import judge_word
from tiltlm.judges import chat_requests
from tiltlm.judges.choosing import pointwise_judge
from tiltlm.judges.judge_interface import Asked
from tiltlm.judges.labels import Labels, Preference
from tiltlm.judges.language_model import Asking

PAGE = (Path(__file__).parents[2] / "docs" / "judges.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def test_its_rules_and_its_function_judge(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(block("toml"))
    asked = [Asked("Why?", None, "Thank you! Please!"), Asked("Why?", None, "So.")]
    assert pointwise_judge(str(tmp_path / "rules.toml"), HubConfig()).rewards(asked) == [0.5, 0.0]
    (tmp_path / "my_judge.py").write_text(block("python"))
    assert pointwise_judge(f"{tmp_path / 'my_judge.py'}:short", HubConfig()).rewards(asked) == [-18.0, -3.0]


def test_its_labels_are_read(tmp_path: Path) -> None:
    (tmp_path / "said.jsonl").write_text(block("json"))
    labels = Labels(judge_word(f"labels:{tmp_path / 'said.jsonl'}"))
    assert labels.preferences("answers.jsonl:1", 2) == [Preference(0, 1, 0.75, 2)]
    assert labels.rewards("answers.jsonl:2", 3) == [4.0, 2.0, None]


def test_its_options_and_defaults_are_those_of_the_command() -> None:
    options = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Judge)}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*(?![\w.-])", PAGE))
    foreign = {"--clear", "--prompt", "--trust-remote-code", "--resume"}
    assert named - foreign <= options
    assert options - named <= {"--answers"}
    asking, patience = Asking("m"), chat_requests.Patience()
    for said in (
        f"{asking.temperature:g} and {asking.max_tokens};",
        f"requests at one time: {asking.at_once}",
        f"{patience.tries}, and {patience.timeout:g} s",
        f'"{asking.criterion}"',
        f"`{chat_requests.KEY_VARIABLE}`",
    ):
        assert said in PAGE, said
    statuses = sorted(chat_requests._PASSING)
    assert f"{', '.join(map(str, statuses[:-1]))} and {statuses[-1]}" in PAGE


@pytest.mark.parametrize("word", re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)[:6])
def test_its_words_name_judges(word: str) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{word}`"))
    assert judge_word(word).pointwise == row.endswith("| a number |")
