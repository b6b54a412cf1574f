"""Rules: points by regular expressions, and every mistake in the file named with its rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltlm.config import HubConfig
from tiltlm.config.judge_words import judge_word
from tiltlm.errors import ConfigError
from tiltlm.judges.choosing import pointwise_judge
from tiltlm.judges.judge_interface import Asked
from tiltlm.judges.rules import Rule, Rules

FILE = r"""
[[rule]]
name = "polite"
pattern = "\\bplease\\b"
points = 1
ignore_case = true

[[rule]]
pattern = "!"
points = -0.25
per_match = true

[[rule]]
pattern = "[?]$"
points = 10.0
where = "prompt"
"""


def test_points_are_summed(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    asked = [
        Asked("Now", None, "Please, please!"),
        Asked("Why?", None, "pleased!!!"),
        Asked("Why?", None, ""),
    ]
    done: list[int] = []
    judge = pointwise_judge(str(path), HubConfig())
    # By hand: "please" once however often it is there, -1/4 for each mark, 10 for a question.
    assert judge.rewards(asked, done.append) == [1 - 0.25, 10 - 0.75, 10.0]
    assert done == [1, 1, 1]
    before = judge.facts()
    path.write_text(FILE.replace("-0.25", "-0.5"))
    assert Rules(judge_word(str(path))).facts() != before


@given(st.text("ab!", max_size=20), st.integers(-8, 8))
def test_every_match_counts_or_one(text: str, points: int) -> None:
    """Against a count by hand."""
    one, each = (Rule(re.compile("!"), points / 4, per_match=many) for many in (False, True))
    asked = Asked("!!!", None, text)
    assert one.points_for(asked) == (points / 4 if "!" in text else 0)
    assert each.points_for(asked) == points / 4 * text.count("!")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[rule]]\npattern = "("\npoints = 1', "rule 1: `(` is no regular expression: missing )"),
        ('[[rule]]\npattern = "a"\npoints = 1\n[[rule]]\npattern = "b"', "rule 2: `points` should be a finite number"),
        ('[[rule]]\nname = "x"\npattern = "a"\npoints = nan', "rule 1 (x): `points` should be a finite number"),
        ('[[rule]]\npattern = "a"\npoints = true', "`points` should be a finite number, not True"),
        ("[[rule]]\npattern = 3\npoints = 1", "`pattern` should be a regular expression"),
        ('[[rule]]\npattern = "a"\npoints = 1\nignorecase = true', "Did you mean `ignore_case`?"),
        ('[[rule]]\npattern = "a"\npoints = 1\nwhere = "both"', "`where` is one of answer, prompt, not 'both'"),
        ('[[rule]]\npattern = "a"\npoints = 1\nper_match = 1', "`per_match` is true or false"),
        ('[[rule]]\npattern = "a*"\npoints = 1\nper_match = true', "matches the empty text"),
        ('[[rule]]\npattern = "a"\npoints = 1\nname = 3', "`name` should be text"),
        ('[[rules]]\npattern = "a"\npoints = 1', "`rules` is not known there"),
        ("rule = 3", "holds no rules"),
        ("", "holds no rules"),
        ("[[rule", "is not valid TOML"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        pointwise_judge(str(path), HubConfig())
    assert said in str(error.value) and "rules.toml" in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        pointwise_judge(str(tmp_path / "none.toml"), HubConfig())
