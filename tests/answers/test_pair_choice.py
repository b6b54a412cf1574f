"""Pairs out of judged answers: against a slow reading of the rules, and reason by reason."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltlm.answers import pair_choice
from tiltlm.answers.answer_rows import AnswerRow, Compared, JudgeFacts, SampledAnswer
from tiltlm.answers.pair_choice import Choosing, ChosenPair, choose_pairs
from tiltlm.answers.pair_file import pair_line
from tiltlm.errors import ConfigError


def row(*answers: SampledAnswer) -> AnswerRow:
    return AnswerRow("p:1", "Q", None, answers)


def rewarded(*rewards: float) -> AnswerRow:
    return row(*(SampledAnswer(f"answer {n}", reward=reward) for n, reward in enumerate(rewards)))


def places(found: pair_choice.Choice) -> list[tuple[int, int]]:
    return [(pair.better, pair.worse) for pair in found.pairs]


_ANSWERS = st.builds(
    SampledAnswer,
    text=st.sampled_from(["", " ", "a", "a ", "b", "ccc", "dddddd"]),
    tokens=st.none() | st.integers(1, 9),
    reward=st.none() | st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    why=st.just("it failed"),
)
SHORT = Choosing(longest_ratio=3)
_GAPS, _MOST, _RATIOS = st.sampled_from([0.0, 0.2]), st.none() | st.integers(1, 4), st.none() | st.just(2.0)
_CHOOSING = st.one_of(
    st.builds(Choosing, st.just("all"), _GAPS, _MOST, _RATIOS),
    st.builds(Choosing, st.just("best-worst"), _GAPS, st.none(), _RATIOS),
    st.builds(Choosing, st.just("gap"), st.just(0.2), _MOST, _RATIOS),
)


@given(answers=st.lists(_ANSWERS, min_size=1, max_size=6), choosing=_CHOOSING)
def test_against_a_slow_reading_of_the_rules(answers: list[SampledAnswer], choosing: Choosing) -> None:
    made = row(*answers)
    found = choose_pairs(made, choosing)

    def allowed(better: int, worse: int) -> bool:
        one, other = answers[better], answers[worse]
        if one.reward is None or other.reward is None or one.reward <= other.reward:
            return False
        if one.reward - other.reward < choosing.least_gap or not one.text.strip() or not other.text.strip():
            return False
        if one.text.strip() == other.text.strip():
            return False
        by_tokens = one.tokens and other.tokens
        sizes = sorted(made.tokens or 0 if by_tokens else len(made.text.strip()) for made in (one, other))
        return choosing.longest_ratio is None or sizes[1] <= choosing.longest_ratio * sizes[0]

    every = {pair for pair in permutations(range(len(answers)), 2) if allowed(*pair)}
    got = places(found)
    assert set(got) <= every and len(set(got)) == len(got)
    assert (found.why is None) == bool(got) == bool(every)
    gaps = {pair: (answers[pair[0]].reward or 0) - (answers[pair[1]].reward or 0) for pair in every}
    texts = {(answers[better].text, answers[worse].text) for better, worse in every}
    if choosing.choose == "best-worst":
        assert len(got) == min(1, len(every)) and all(gaps[pair] == max(gaps.values()) for pair in got)
    elif choosing.choose == "all":
        assert len(got) == min(len(every), choosing.most_pairs or len(every))
    else:
        assert len(got) == min(len(texts), choosing.most_pairs or len(texts))
        assert len({(answers[better].text, answers[worse].text) for better, worse in got}) == len(got)
        taken = {(answers[better].text, answers[worse].text) for better, worse in got}
        left = [gaps[pair] for pair in every if (answers[pair[0]].text, answers[pair[1]].text) not in taken]
        assert not got or not left or min(gaps[pair] for pair in got) >= max(left)
    usable = len(answers) - sum(found.answers.values())
    if usable >= 2:
        assert len(got) + sum(found.left_out.values()) == usable * (usable - 1) // 2
    assert choose_pairs(made, choosing) == found


@pytest.mark.parametrize(
    ("made", "choosing", "why"),
    [
        (row(SampledAnswer("a", reward=1.0)), Choosing(), pair_choice.ONE_ANSWER),
        (row(SampledAnswer("a", reward=1.0), SampledAnswer("b", why="no")), Choosing(), pair_choice.FAILED),
        (row(SampledAnswer("a", reward=1.0), SampledAnswer(" ", reward=0.0)), Choosing(), pair_choice.EMPTY),
        (rewarded(1, 1, 1), Choosing(), pair_choice.EQUAL),
        (rewarded(1, 1.05), Choosing(least_gap=0.1), pair_choice.NEAR),
        (row(SampledAnswer("a", reward=1.0), SampledAnswer("a ", reward=0.0)), Choosing(), pair_choice.IDENTICAL),
        (row(SampledAnswer("a", reward=1.0), SampledAnswer("b" * 9, reward=0.0)), SHORT, pair_choice.UNLIKE),
    ],
    ids=["one", "failed", "empty", "equal", "near", "identical", "unlike"],
)  # fmt: skip
def test_a_prompt_without_a_pair_has_its_reason(made: AnswerRow, choosing: Choosing, why: str) -> None:
    found = choose_pairs(made, choosing)
    assert found.pairs == () and found.why == why


def test_the_ways_of_choosing() -> None:
    made = rewarded(0.5, 2.0, 0.0, 1.0)
    assert places(choose_pairs(made, Choosing())) == [(1, 0), (0, 2), (3, 0), (1, 2), (1, 3), (3, 2)]
    assert choose_pairs(made, Choosing("best-worst")).pairs == (ChosenPair(1, 2, 2.0),)
    assert places(choose_pairs(made, Choosing("gap", most_pairs=2))) == [(1, 0), (1, 2)]
    assert places(choose_pairs(made, Choosing("gap", least_gap=1.0))) == [(1, 0), (1, 2), (1, 3), (3, 2)]
    assert places(choose_pairs(rewarded(1, 1, 0, 0), Choosing("best-worst"))) == [(0, 2)]


def compared(judge: str, *verdicts: tuple[int, int, float]) -> AnswerRow:
    made = rewarded(0.75, 0.5, 0.25)
    return dataclasses.replace(made, judge=JudgeFacts(judge), compared=tuple(Compared(*one) for one in verdicts))


def test_the_comparison_of_the_two_says_more_than_means_over_others() -> None:
    made = compared("https://host/v1", (0, 1, 0.0), (2, 0, 0.5))
    found = choose_pairs(made, Choosing())
    assert found.pairs == (ChosenPair(1, 0, -0.25), ChosenPair(1, 2, 0.25))
    assert found.left_out == Counter({pair_choice.TIED: 1})
    assert "_score" not in pair_line(made, found.pairs[0]) and '"chosen_score": 0.5' in pair_line(made, found.pairs[1])
    assert choose_pairs(made, Choosing(least_gap=0.1)).left_out == Counter({pair_choice.TIED: 1, pair_choice.NEAR: 1})


def test_equal_means_do_not_undo_a_comparison() -> None:
    made = dataclasses.replace(rewarded(0.5, 0.5, 0.5), compared=(Compared(0, 1, 1.0), Compared(1, 2, 1.0)))
    found = choose_pairs(made, Choosing())
    assert places(found) == [(0, 1), (1, 2)] and found.left_out == Counter({pair_choice.EQUAL: 1})


def test_people_are_taken_at_their_word_alone() -> None:
    found = choose_pairs(compared("labels:said.jsonl", (0, 1, 0.75), (1, 2, 0.5)), Choosing())
    assert places(found) == [(0, 1)]
    assert found.left_out == Counter({pair_choice.TIED: 1, pair_choice.UNCOMPARED: 1})
    numbers = dataclasses.replace(compared("labels:said.jsonl"), compared=None)
    assert len(choose_pairs(numbers, Choosing()).pairs) == 3


def test_the_least_gap_is_not_undone_by_rounding() -> None:
    assert 0.3 - 0.1 < 0.2
    assert places(choose_pairs(rewarded(0.1, 0.3), Choosing(least_gap=0.2))) == [(1, 0)]
    assert not choose_pairs(rewarded(0.1, 0.2999), Choosing(least_gap=0.2)).pairs


def test_which_of_all_pairs_are_kept_does_not_depend_on_the_rewards() -> None:
    first = choose_pairs(rewarded(1, 2, 3, 4), Choosing(most_pairs=3))
    second = choose_pairs(rewarded(4, 1, 3, 2), Choosing(most_pairs=3))
    assert [sorted(pair) for pair in places(first)] == [sorted(pair) for pair in places(second)]
    assert first.left_out == Counter({pair_choice.BEYOND: 3})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"choose": "best-worst", "most_pairs": 2}, "--most-pairs has no effect"),
        ({"choose": "gap"}, "same as `all`"),
        ({"least_gap": -1.0}, "--least-gap"),
        ({"least_gap": float("nan")}, "--least-gap"),
        ({"most_pairs": 0}, "--most-pairs"),
        ({"longest_ratio": 0.5}, "--longest-ratio"),
    ],
    ids=["best-worst", "gap", "negative", "nan", "none", "ratio"],
)
def test_what_does_nothing_or_cannot_be_is_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Choosing(**settings)  # type: ignore[arg-type]
