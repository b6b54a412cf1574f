"""A Python function of a user's own as a judge: what it is given, and what becomes of its mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiltlm.config import HubConfig
from tiltlm.errors import ConfigError, JudgeError
from tiltlm.judges.choosing import pointwise_judge, require_reward
from tiltlm.judges.judge_interface import Asked, PointwiseJudge

ASKED = [Asked("Q", None, "four"), Asked("Why?", None, "")]

FILE = """
import numpy as np

def answer_alone(text): return len(text)
def both(question, reply): return 10 * len(question) + len(reply)
def by_name(answer, prompt): return 10 * len(prompt) + len(answer)
def with_default(answer, weight=2.0): return weight * len(answer)
def of_numpy(answer): return np.float32(len(answer))
def truth(answer): return bool(answer)
class Kept:
    def __call__(self, answer): return len(answer)
kept = Kept()
def fails(answer):
    return 1 / len(answer)
def text(answer): return "good"
def nothing(answer): pass
def infinite(answer): return float("inf")
def leaves(answer): raise SystemExit(0)
def three(a, b, c): return 0
def none(): return 0
def prompt_alone(prompt): return 0
def keyword(*, answer): return 0
number = 3
def answer_first(answer, question): return 10 * len(question) + len(answer)
def prompt_last(response, prompt): return 10 * len(prompt) + len(response)
def prompt_first(prompt, response): return 10 * len(prompt) + len(response)
def answer_last(question, answer): return 10 * len(question) + len(answer)
def by_place(answer, prompt, /): return 10 * len(prompt) + len(answer)
def huge(answer): return 10 ** 400
def beyond(answer): return 10 ** 5000
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def judge(file: Path, name: str) -> PointwiseJudge:
    return pointwise_judge(f"{file}:{name}", HubConfig())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("answer_alone", [4.0, 0.0]),
        ("both", [14.0, 40.0]),
        ("by_name", [14.0, 40.0]),
        ("answer_first", [14.0, 40.0]),
        ("prompt_last", [14.0, 40.0]),
        ("prompt_first", [14.0, 40.0]),
        ("answer_last", [14.0, 40.0]),
        ("by_place", [14.0, 40.0]),
        ("with_default", [8.0, 0.0]),
        ("of_numpy", [4.0, 0.0]),
        ("truth", [1.0, 0.0]),
        ("kept", [4.0, 0.0]),
    ],
)
def test_a_function_is_given_what_it_takes(file: Path, name: str, expected: list[float]) -> None:
    done: list[int] = []
    found = judge(file, name).rewards(ASKED, done.append)
    assert found == expected and all(type(value) is float for value in found)
    assert sum(done) == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", "fails at answer 2 (''): "),
        ("fails", "mine.py, line 14 (return 1 / len(answer)): ZeroDivisionError"),
        ("text", "returned str 'good' for answer 1 ('four'); a finite number is needed"),
        ("nothing", "returned NoneType None"),
        ("infinite", "returned float inf"),
        ("huge", "returned int 1000"),
        ("beyond", "returned int of too many digits for answer 1"),
        ("leaves", "fails at answer 1 ('four')"),
    ],
)
def test_what_goes_wrong_names_the_answer(file: Path, name: str, said: str) -> None:
    with pytest.raises(JudgeError) as error:
        judge(file, name).rewards(ASKED)
    assert said in str(error.value)
    with pytest.raises(JudgeError):  # and before the work, on an empty answer too
        require_reward(f"{file}:{name}", HubConfig())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("three", "should be a function of (answer) or of (prompt, answer); it takes (a, b, c)"),
        ("none", "it takes none"),
        ("prompt_alone", "it takes (prompt)"),
        ("keyword", "it takes (answer)"),
        ("number", "no function `number`"),
        ("shorter", "It has: answer_alone, both"),
    ],
)
def test_what_is_no_judge_is_refused_before_anything_is_judged(file: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        judge(file, name)
    assert said in str(error.value)


def test_a_file_that_is_not_there_or_fails_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        judge(tmp_path / "none.py", "x")
    (tmp_path / "bad.py").write_text("x = 1\nimport no_such_thing\n")
    with pytest.raises(ConfigError, match=r"the judge's file fails: .*bad.py, line 2"):
        judge(tmp_path / "bad.py", "x")


def test_another_source_is_another_judge(file: Path) -> None:
    before = judge(file, "both").facts()
    file.write_text(FILE + "\n# another\n")
    assert judge(file, "both").facts() != before
