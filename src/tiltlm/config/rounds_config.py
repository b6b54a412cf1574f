"""The section [rounds]: training in rounds on pairs of the model's own answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tiltlm.config.declaring import NotNegative, NotNegativeInt, PositiveInt, section
from tiltlm.config.judge_words import NONE, judge_word
from tiltlm.errors import ConfigError

OF_PAIRS = ("choose", "least_gap", "most_pairs")
"""Options that say which answers make a pair."""


def _judge(word: str) -> str:
    """The word itself, or empty.

    Raises:
        ValueError: it names no judge, or people, who are not there while rounds go on.
    """
    if not word:
        return word
    if word == NONE:
        raise ValueError("cannot be `none`: somebody has to judge. Leave it out to take comparison.reward.")
    try:
        named = judge_word(word)
    except ConfigError as error:
        raise ValueError(f"cannot be `{word}`: {error}") from error
    if named.kind == "labels":
        raise ValueError(
            f"cannot be `{word}`: people have not seen the answers of a round yet. "
            "Go by hand: tiltlm sample, judge, pair, train."
        )
    return word


@section("rounds")
class RoundsConfig:
    """Rounds from the model's own answers: it answers the prompts of data.train, a judge judges, pairs are made, it is
    trained on them, and again (docs/frontier.md)."""

    count: NotNegativeInt = 0
    """How many rounds. 0: none, but one training on the pairs of data.train."""
    judge: Annotated[str, AfterValidator(_judge)] = ""
    """Who judges (docs/judges.md). Empty: the judge of comparison.reward."""
    judge_model: str | None = None
    """Of a judge at an address: the model's name there."""
    prompts: PositiveInt | None = None
    """How many prompts are answered in a round; the next one takes the next ones. Unset: all in every round."""
    answers: Annotated[int, Field(ge=2)] = 8
    """Answers to each prompt."""
    temperature: Annotated[float, Field(ge=0.001)] = 1.0
    """Temperature of the answers. 1 is the model itself, whose own pairs theory.pdf, Proposition 13 (on-policy), asks
    for; another is right where the model will be used at that one."""
    max_new_tokens: PositiveInt | None = None
    """Longest answer in tokens. Unset: comparison.max_new_tokens."""
    choose: Literal["all", "best-worst", "gap"] = "all"
    """Which two answers of a prompt make a pair: every two, the two furthest apart, or the `most_pairs` furthest apart
    (docs/own-pairs.md). A loss of lists learns from all answers to a prompt at once, without pairs."""
    least_gap: NotNegative = 0.0
    """Answers whose rewards are nearer than this make no pair; equal ones never do."""
    most_pairs: PositiveInt | None = None
    """Most pairs of a prompt. Unset: no limit."""
    reference: Literal["start", "last"] = "start"
    """The reference of a round: the model before all rounds, so that KL is paid once and in all; or the one that the
    round before left, so that every round pays for itself alone."""
    stop: bool = True
    """No further round after one that did not raise the reward of held-out prompts beyond chance: whose gain over the
    round before has an interval that includes nothing."""
