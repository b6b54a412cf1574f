"""Every example also has answers to another prompt scored, where the objective needs them."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import byte_level

from tiltlm.config import Config
from tiltlm.data.preparation import prepare_data, read_data
from tiltlm.data.tokens.mismatched import with_mismatched
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.errors import DataError
from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED, Needs

LONGEST = 12
few = settings(max_examples=80, deadline=None)


def example(number: int, prompt: int, lengths: list[int]) -> TokenizedExample:
    """Prompt p is p + 1 times the token 100 + p; completion n of example e is tokens 1000 * e + n."""
    start = [100 + prompt] * (prompt + 1)
    sequences = tuple(
        TokenizedSequence(np.array([*start, *[1000 * number + 1000 + n] * length], dtype=np.int32), len(start), n)
        for n, length in enumerate(lengths)
    )
    labels = (CHOSEN, REJECTED, CHOSEN, REJECTED)[: len(lengths)]
    return TokenizedExample(f"e{number}", sequences, labels)


some_examples = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(1, LONGEST - 4), min_size=1, max_size=4)), min_size=1, max_size=12
).map(lambda given: TokenColumns.of(example(number, *one) for number, one in enumerate(given)))


def shown(one: TokenizedExample) -> tuple[object, ...]:
    sequences = [(s.ids.tolist(), s.first_scored, s.tokens_cut) for s in one.sequences]
    return one.id, one.labels, one.prompt_tokens_cut, sequences


@few
@given(some_examples, st.integers(LONGEST - 4, 2 * LONGEST))
def test_own_sequences_stay_and_the_others_answer_another_prompt(columns: TokenColumns, max_length: int) -> None:
    if len({one.sequences[0].first_scored for one in columns}) == 1:
        with pytest.raises(DataError, match=f"all {len(columns)} held-out examples that can be used have one prompt"):
            with_mismatched(columns, max_length, "held-out")
        return
    result = with_mismatched(columns, max_length)
    assert len(result) == len(columns) and result.sequences == 2 * columns.sequences
    for field in ("ids", "first_scored", "tokens_cut", "labels", "prompt_tokens_cut", "bounds", "members"):
        assert getattr(result, field).dtype == getattr(columns, field).dtype
    every = {int(s.ids[-1]): (s, one.sequences[0].first_scored) for one in columns for s in one.sequences}
    for before, after in zip(columns, result, strict=True):
        count = len(before.sequences)
        assert after.labels == (*before.labels, *[MISMATCHED] * count)
        own = TokenizedExample(after.id, after.sequences[:count], after.labels[:count], after.prompt_tokens_cut)
        assert shown(own) == shown(before)
        for sequence, added in zip(before.sequences, after.sequences[count:], strict=True):
            start = sequence.first_scored
            assert added.first_scored == start and added.ids[:start].tolist() == sequence.ids[:start].tolist()
            other, prompt = every[int(added.ids[-1])]
            assert prompt != start and 0 < added.scored_tokens <= max(max_length - start, 0)
            completion = other.ids[other.first_scored :]
            assert added.ids[start:].tolist() == completion[: added.scored_tokens].tolist()
            assert added.tokens_cut - other.tokens_cut == other.scored_tokens - added.scored_tokens
            assert len(added.ids) == max_length or added.tokens_cut == other.tokens_cut


@few
@given(st.integers(2, 9), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
def test_every_completion_is_taken_once_where_prompts_have_equally_many(
    prompts: int, completions: int, repeats: int, seed: int
) -> None:
    """Repeated prompts may stand in several examples, and begin anywhere."""
    order = [prompt for prompt in random.Random(seed).sample(range(prompts), prompts) for _ in range(repeats)]
    turn = seed % len(order)
    given_ = [example(n, prompt, [1] * completions) for n, prompt in enumerate(order[turn:] + order[:turn])]
    result = with_mismatched(TokenColumns.of(given_), 99)
    taken = sorted(int(s.ids[-1]) for one in result for s in one.sequences[completions:])
    assert taken == sorted(int(s.ids[-1]) for one in given_ for s in one.sequences)


def test_a_pair_takes_a_chosen_and_a_rejected_answer() -> None:
    result = with_mismatched(TokenColumns.of([example(n, n, [1, 1]) for n in range(3)]), 99)
    assert [[int(s.ids[-1]) for s in one.sequences[2:]] for one in result] == [[2000, 2001], [3000, 3001], [1000, 1001]]


def test_preparation_adds_them_and_the_account_does_not_count_them() -> None:
    config = Config()
    rows = [{"prompt": f"Q{n}:", "completion": " yes", "label": n % 2 == 0} for n in range(20)]

    def prepared(mismatched: bool) -> tuple[TokenColumns, TokenColumns, object]:
        read = read_data(config, Needs(unit="completion", mismatched=mismatched), rows)
        data = prepare_data(read, ExampleTokenizer(byte_level(), config.data), lambda done: None)
        return data.train, data.eval, data.report

    plain, added = prepared(False), prepared(True)
    assert plain[2] == added[2]
    for without, columns in zip(plain[:2], added[:2], strict=True):
        expected = with_mismatched(without, config.data.max_length)
        assert [shown(one) for one in columns] == [shown(one) for one in expected]
    with pytest.raises(DataError, match="all 1 held-out examples that can be used have one prompt"):
        rows = rows[:4]
        prepared(True)
