"""The word that names a judge: taken apart, or refused with what is possible."""

from __future__ import annotations

import pytest

from tiltlm.config import ComparisonConfig, HubConfig
from tiltlm.config.judge_words import is_own_code, judge_word
from tiltlm.errors import ConfigError
from tiltlm.judges.choosing import JudgeOptions, chosen_judge, pointwise_judge


@pytest.mark.parametrize(
    ("word", "kind", "target", "function"),
    [
        ("vader", "vader", "vader", ""),
        ("my.py:short", "function", "my.py", "short"),
        ("C:/mine/my.py:short", "function", "C:/mine/my.py", "short"),
        ("rules.toml", "rules", "rules.toml", ""),
        ("model:a/b", "model", "a/b", ""),
        ("model:../folder.toml", "model", "../folder.toml", ""),
        ("model:my.py:short", "model", "my.py:short", ""),
        ("https://host/v1", "language-model", "https://host/v1", ""),
        ("HTTP://host:1/v1", "language-model", "HTTP://host:1/v1", ""),
        ("labels:said.jsonl", "labels", "said.jsonl", ""),
    ],
)
def test_a_word_is_taken_apart(word: str, kind: str, target: str, function: str) -> None:
    named = judge_word(word)
    assert (named.kind, named.target, named.function, named.word) == (kind, target, function, word)
    assert named.pointwise == (kind in ("vader", "function", "rules", "model"))
    assert is_own_code(word) == (kind == "function")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("vadr", "Did you mean `vader`?"),
        ("my.py", "needs the name of a function in it: my.py:FUNCTION"),
        ("model:", "It is one of: vader"),
        ("labels: ", "labels:FILE.jsonl"),
        (".toml", "FILE.toml"),
        ("ftp://host/v1", "An address begins with http:// or https://"),
        ("", "names no judge"),
    ],
)
def test_what_names_no_judge_is_told_what_does(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        judge_word(word)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("vadr", "comparison.reward cannot be `vadr`. Did you mean `vader`? It is none, or one of: vader"),
        ("non", "Did you mean `none`?"),
        ("https://host/v1", "gives no number to an answer that stands alone"),
        ("labels:said.jsonl", "Compare answers with it by tiltlm judge"),
    ],
)
def test_a_reward_is_none_or_gives_numbers(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        ComparisonConfig(reward=word)
    assert said in str(error.value)
    assert ComparisonConfig(reward="my.py:short").reward == "my.py:short"


@pytest.mark.parametrize(
    ("word", "options", "said"),
    [
        ("vader", JudgeOptions(label="good"), "--label has no effect on the judge `vader`"),
        ("model:x", JudgeOptions(at_once=2), "--at-once has no effect"),
        ("https://host/v1", JudgeOptions(model="m", label="good"), "--label has no effect"),
        ("https://host/v1", JudgeOptions(), "needs the name of its model there: --model NAME"),
        ("https://host/v1", JudgeOptions(model="m", tries=0), "must be above 0"),
        ("https://host/v1", JudgeOptions(model="m", prices=(1.0, -1.0)), "two numbers from 0 on"),
        ("model:x", JudgeOptions(form="both"), "it is one of auto, chat, pair, joined, answer"),
    ],
)
def test_options_that_a_judge_does_not_read_or_lacks_are_refused(word: str, options: JudgeOptions, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        chosen_judge(word, options)
    assert said in str(error.value)


def test_a_judge_that_compares_is_no_pointwise_one() -> None:
    with pytest.raises(ConfigError, match="gives no number"):
        pointwise_judge("https://host/v1", HubConfig())
