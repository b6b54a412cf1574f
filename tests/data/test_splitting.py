from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltlm.data import splitting
from tiltlm.data.examples import Example, Message, Text
from tiltlm.data.splitting import draw_split, drawing_order, prompt_key, subsample, without_leaks
from tiltlm.errors import DataError

fractions = st.floats(0.01, 0.99)
seeds = st.integers(0, 5)
# Which prompt each pair has: few prompts, so that they repeat.
prompt_lists = st.lists(st.integers(0, 20), min_size=1, max_size=60)


def pairs_of(prompts: list[int]) -> list[Example]:
    return [Example.pair(f"p:{i}", f"prompt {p}", f"good {i}", f"bad {i}") for i, p in enumerate(prompts)]


def all_fit(numbers: np.ndarray) -> np.ndarray:
    return np.ones(len(numbers), dtype=bool)


def split(pairs: list[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    train, held_out = (part.tolist() for part in draw_split(pairs, fraction, seed, (None, None), all_fit))
    assert train == sorted(train) and held_out == sorted(held_out)
    return [pairs[number] for number in train], [pairs[number] for number in held_out]


def prompts_of(pairs: list[Example]) -> set[Text]:
    return {pair.prompt for pair in pairs}


@given(prompts=prompt_lists.filter(lambda prompts: len(set(prompts)) > 1), fraction=fractions, seed=seeds)
def test_a_split_shares_no_prompt_and_loses_no_pair(prompts: list[int], fraction: float, seed: int) -> None:
    pairs = pairs_of(prompts)
    train, held_out = split(pairs, fraction, seed)
    assert train and held_out and not prompts_of(train) & prompts_of(held_out)
    assert [pair for pair in pairs if pair in train] == train and [
        pair for pair in pairs if pair in held_out
    ] == held_out
    assert len(train) + len(held_out) == len(pairs)
    distinct = len(set(prompts))
    assert abs(len(prompts_of(held_out)) - fraction * distinct) <= 1


@given(prompts=prompt_lists.filter(lambda prompts: len(set(prompts)) > 1), fraction=fractions, seed=seeds)
def test_order_and_repetition_of_rows_do_not_change_a_split(prompts: list[int], fraction: float, seed: int) -> None:
    held_out = prompts_of(split(pairs_of(prompts), fraction, seed)[1])
    more = prompts + prompts[: len(prompts) // 2]
    random.Random(0).shuffle(more)
    assert prompts_of(split(pairs_of(more), fraction, seed)[1]) == held_out


@given(old=st.sets(st.integers(0, 50), min_size=2), new=st.sets(st.integers(51, 99)), fraction=fractions, seed=seeds)
def test_new_prompts_move_old_ones_only_at_the_border(old: set[int], new: set[int], fraction: float, seed: int) -> None:
    before = prompts_of(split(pairs_of(sorted(old)), fraction, seed)[1])
    after = prompts_of(split(pairs_of(sorted(old | new)), fraction, seed)[1])
    after &= prompts_of(pairs_of(sorted(old)))
    assert after <= before or before <= after


def test_another_seed_is_another_split() -> None:
    splits = {frozenset(prompts_of(split(pairs_of(list(range(50))), 0.2, seed)[1])) for seed in range(5)}
    assert len(splits) == 5


def test_one_prompt_cannot_be_split() -> None:
    with pytest.raises(DataError, match="1 different prompts"):
        split(pairs_of([1, 1, 1]), 0.5, 0)


def test_prompts_are_the_same_but_for_white_space_around_them() -> None:
    assert prompt_key("Hi ") == prompt_key("\n\nHi") != prompt_key("hi")
    chat = (Message("user", "Hi"),)
    assert prompt_key(chat) == prompt_key((Message("user", " Hi"),))
    assert len({prompt_key("Hi"), prompt_key(chat), prompt_key((Message("system", "Hi"),))}) == 3


def test_prompt_keys_stay_the_same_from_version_to_version() -> None:
    assert prompt_key("Hi") == "17d0dba9164f32b85681d9d1687edb23"
    assert prompt_key((Message("user", "Hi é"),)) == "635aea3f9f9d9cb721d55bf9abdd8daf"


def test_training_pairs_with_a_held_out_prompt_are_dropped() -> None:
    held_out = [Example.pair("e:1", "prompt 1 ", "x", "y")]
    kept, dropped = without_leaks(pairs_of([0, 1, 2, 1]), held_out)
    assert kept.tolist() == [0, 2]
    assert [(drop.id, drop.reason) for drop in dropped] == [(f"p:{i}", "prompt is held out") for i in (1, 3)]
    assert "e:1" in str(dropped[0].detail)


def test_nothing_left_to_train_on_is_an_error() -> None:
    with pytest.raises(DataError, match="none is left"):
        without_leaks(pairs_of([1]), pairs_of([1]))


@given(prompts=prompt_lists, seed=seeds)
def test_the_drawing_order_is_that_of_the_contents(prompts: list[int], seed: int) -> None:
    pairs = pairs_of(prompts)
    order = drawing_order(pairs, seed)
    assert sorted(order) == list(range(len(pairs)))
    backwards = drawing_order(pairs[::-1], seed)
    assert [pairs[::-1][number] for number in backwards] == [pairs[number] for number in order]
    drawn = [pairs[number].prompt for number in order]
    # Prompt by prompt: no prompt comes again after another one.
    assert len({*drawn}) == 1 + sum(a != b for a, b in pairwise(drawn)) or not drawn


@settings(max_examples=300, deadline=None)
@given(
    prompts=prompt_lists,
    unfit=st.sets(st.integers(0, 59)),
    fraction=fractions,
    seed=seeds,
    limits=st.tuples(st.none() | st.integers(1, 20), st.none() | st.integers(1, 20)),
    at_once=st.integers(1, 8),
)
def test_asking_for_few_pairs_draws_the_same_as_asking_for_all(
    prompts: list[int],
    unfit: set[int],
    fraction: float,
    seed: int,
    limits: tuple[int | None, int | None],
    at_once: int,
) -> None:
    pairs = pairs_of(prompts)
    fits = [number for number in range(len(pairs)) if number not in unfit]
    if len({prompts[number] for number in fits}) < 2:
        with pytest.raises(DataError):
            draw_split(pairs, fraction, seed, limits, lambda numbers: ~np.isin(numbers, list(unfit)))
        return
    asked: list[int] = []

    def fitting(numbers: np.ndarray) -> np.ndarray:
        asked.extend(numbers.tolist())
        return ~np.isin(numbers, list(unfit))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "PROMPTS_AT_ONCE", at_once)
        drawn = draw_split(pairs, fraction, seed, limits, fitting)
    assert len(asked) == len(set(asked))
    # The slow way: all that fit and nothing else, split, and then limited.
    whole = split([pairs[number] for number in fits], fraction, seed)
    for part, everything, limit in zip(drawn, whole, limits, strict=True):
        ours = [pairs[number] for number in part.tolist()]
        assert ours == [pair for pair in everything if pair in ours]
        assert len(ours) == min(len(everything), limit or len(everything))
    larger = (limits[0] and limits[0] + 1, limits[1] and limits[1] + 1)
    again = draw_split(pairs, fraction, seed, larger, fitting)
    assert all(set(fewer.tolist()) <= set(more.tolist()) for fewer, more in zip(drawn, again, strict=True))


def test_with_limits_most_prompts_are_not_asked_for() -> None:
    asked: list[int] = []

    def fitting(numbers: np.ndarray) -> np.ndarray:
        asked.extend(numbers.tolist())
        odd: np.ndarray = numbers % 2 == 1
        return odd

    train, held_out = draw_split(pairs_of(list(range(50_000))), 0.1, 0, (100, 100), fitting)
    assert len(train) == len(held_out) == 100 and len(asked) <= 8_000


@given(prompts=prompt_lists, limit=st.integers(1, 60), seed=seeds)
def test_a_sample_keeps_the_order_and_grows_with_its_limit(prompts: list[int], limit: int, seed: int) -> None:
    pairs = pairs_of(prompts)
    sample = subsample(pairs, limit, seed)
    assert len(sample) == min(limit, len(pairs)) and sample == sorted(sample)
    assert set(sample) <= set(subsample(pairs, limit + 1, seed))
    backwards = subsample(pairs[::-1], limit, seed)
    assert [pairs[::-1][number] for number in backwards[::-1]] == [pairs[number] for number in sample]


def test_no_limit_is_all() -> None:
    assert subsample(pairs_of([1, 2]), None, 0) == [0, 1]


def test_prompts_that_differ_in_what_a_message_says_besides_its_text_differ() -> None:
    plain, calling = Message("assistant", "Hi"), Message("assistant", "Hi", (("tool_calls", "[1]"),))
    assert prompt_key((plain,)) != prompt_key((calling,))


def test_prompts_that_are_given_other_tools_differ() -> None:
    """One question to which the answer depends on the tools is as many prompts as there are sets of tools."""
    ask = (Message("user", "Hi"),)
    assert len({prompt_key(ask), prompt_key(ask, "[]"), prompt_key(ask, '[{"name": "clock"}]')}) == 3
    pairs = [Example.pair(f"p:{n}", ask, "a", "b", f'[{{"name": "tool {n}"}}]') for n in range(4)]
    train, held_out = split(pairs, 0.5, 0)
    assert len(train) == len(held_out) == 2
    assert without_leaks(train, held_out)[0].tolist() == list(range(len(train)))
    with pytest.raises(DataError, match="1 different prompts"):
        split([Example.pair(f"p:{n}", ask, f"a {n}", "b", "[]") for n in range(4)], 0.5, 0)
