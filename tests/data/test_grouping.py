"""Pairs of one prompt are known by its tokens."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiltlm.data.tokens.grouping import TELLING, prompt_groups
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence


def pair(prompt: list[int], cut: int = 0, completions: tuple[int, int] = (7, 8)) -> TokenizedExample:
    chosen, rejected = (
        TokenizedSequence(np.array([*prompt, token], dtype=np.int32), len(prompt)) for token in completions
    )
    return TokenizedExample.pair("pair", chosen, rejected, cut)


def partition(groups: list[int]) -> set[frozenset[int]]:
    return {frozenset(i for i, other in enumerate(groups) if other == group) for group in groups}


def test_equal_prompts_are_one_group_and_others_are_not() -> None:
    given = [pair([1, 5, 6]), pair([1, 5]), pair([1, 5, 6], completions=(3, 4)), pair([5, 6]), pair([1, 5])]
    assert partition(prompt_groups(TokenColumns.of(given))) == {frozenset({0, 2}), frozenset({1, 4}), frozenset({3})}
    assert prompt_groups(TokenColumns.of([])) == []


def test_prompts_cut_by_different_amounts_are_still_one() -> None:
    whole = list(range(100, 100 + 3 * TELLING))
    bos = 1
    given = [pair([bos, *whole])] + [pair([bos, *whole[cut:]], cut) for cut in (5, 20, 2 * TELLING)]
    other = pair([bos, *range(400, 400 + TELLING)], 9)
    assert partition(prompt_groups(TokenColumns.of([*given, other]))) == {frozenset(range(4)), frozenset({4})}


def test_a_header_alone_does_not_tell_a_prompt() -> None:
    header = [50, 51, 52]
    given = [pair([1, *header], 40), pair([1, 60, *header]), pair([1, 61, *header])]
    assert len(set(prompt_groups(TokenColumns.of(given)))) == 3


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(0, 99))
def test_the_order_of_pairs_does_not_matter(prompts: list[int], seed: int) -> None:
    shuffled = random.Random(seed).sample(range(len(prompts)), len(prompts))
    groups = prompt_groups(TokenColumns.of(pair([1, 10 + prompts[i]]) for i in shuffled))
    known = dict(zip(groups, (prompts[i] for i in shuffled), strict=True))
    assert len(known) == len(set(prompts)) == len(set(groups))
    assert [known[group] for group in groups] == [prompts[i] for i in shuffled]
