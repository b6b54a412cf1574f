"""Examples are one prompt with any number of labelled completions; a pair is the commonest case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import CHAT_TEMPLATE, byte_level, pair_tokenizer

from tiltlm.data.examples import Example, Message, Text, contradictory
from tiltlm.data.splitting import example_key
from tiltlm.data.tokens import token_columns
from tiltlm.data.tokens.names import Names
from tiltlm.data.tokens.sharing import tokens_laid_out
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED

few = settings(max_examples=40, deadline=None)
words = st.lists(st.sampled_from(["yes", "no", "Ass", "istant", "é", "\n"]), min_size=1, max_size=12).map(" ".join)
labels_and_texts = st.lists(st.tuples(st.sampled_from([CHOSEN, REJECTED]), words), min_size=1, max_size=5)


def as_turn(role: str, text: str, chat: bool) -> Text:
    return (Message(role, text),) if chat else f"{text}:"


def test_a_pair_and_its_sides() -> None:
    pair = Example.pair("p:1", "Q:", " yes", " no")
    assert pair == Example("p:1", "Q:", (" yes", " no"), (CHOSEN, REJECTED))
    assert pair.is_pair and pair.names == ("chosen", "rejected")
    assert (pair.chosen, pair.rejected) == (" yes", " no")
    turned = Example("p:1", "Q:", (" no", " yes"), (REJECTED, CHOSEN))
    assert not turned.is_pair and turned.names == ("completion 1", "completion 2")
    assert (turned.chosen, turned.rejected) == (" yes", " no")
    assert Example("p:1", "Q:", (" yes",), (REJECTED,)).names == ("completion",)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=6))
def test_completions_contradict_where_one_text_has_two_labels(given_: list[tuple[int, int]]) -> None:
    texts, labels = [text for text, _ in given_], [label for _, label in given_]
    assert contradictory(texts, labels) == (len(set(given_)) > len(set(texts)))


@few
@given(words, labels_and_texts, st.booleans())
def test_each_sequence_is_as_if_its_completion_were_alone(prompt: str, said: list[tuple[int, str]], chat: bool) -> None:
    """Where nothing is cut, completions do not know of each other."""
    tokenizer = pair_tokenizer(byte_level(chat_template=CHAT_TEMPLATE if chat else None))
    asked = as_turn("user", prompt, chat)
    texts = tuple(as_turn("assistant", text, chat) for _, text in said)
    labels = tuple(label for label, _ in said)
    result = tokenizer([Example("p:1", asked, texts, labels)])
    if contradictory(texts, labels):
        assert result.dropped[0].reason == "identical completions"
        return
    alone = tokenizer([Example("p:1", asked, (text,), (label,)) for text, label in zip(texts, labels, strict=True)])
    if result.dropped or alone.dropped:
        assert result.dropped and alone.dropped
        return
    (example,) = result.examples
    assert example.labels == labels
    for sequence, other in zip(example.sequences, alone.examples, strict=True):
        assert sequence.ids.tolist() == other.sequences[0].ids.tolist()
        assert sequence.first_scored == other.sequences[0].first_scored


@few
@given(words, st.lists(words, min_size=1, max_size=5, unique=True), st.booleans(), st.integers(6, 30))
def test_the_prompt_is_cut_alike_for_all_completions(
    prompt: str, answers: list[str], chat: bool, max_length: int
) -> None:
    template = CHAT_TEMPLATE if chat else None
    short = pair_tokenizer(byte_level(chat_template=template), max_length=max_length, long_completions="truncate")
    asked = as_turn("user", prompt, chat)
    example = Example("p:1", asked, tuple(as_turn("assistant", a, chat) for a in answers), (CHOSEN,) * len(answers))
    result = short([example])
    for one in result.examples:
        starts = [sequence.ids[: sequence.first_scored].tolist() for sequence in one.sequences]
        # A token across the border is scored, so a prompt may be some tokens shorter.
        shortest = min(starts, key=len)
        assert all(start[: len(shortest)] == shortest for start in starts)
        assert all(0 < sequence.scored_tokens <= max_length - sequence.first_scored for sequence in one.sequences)


def test_the_key_of_an_example_is_that_of_its_prompt() -> None:
    pair = Example.pair("p:1", "Q:", " yes", " no")
    assert example_key(pair) == example_key(Example("p:2", "Q: ", (" maybe",), (CHOSEN,)))


sequences = st.tuples(st.lists(st.integers(0, 2), min_size=2, max_size=6), st.integers(0, 3)).map(
    lambda given: TokenizedSequence(np.array(given[0], dtype=np.int32), 1, given[1])
)
examples = st.tuples(st.lists(sequences, min_size=1, max_size=4), st.integers(0, 9)).map(
    lambda given: TokenizedExample("e", tuple(given[0]), (CHOSEN,) * len(given[0]), given[1])
)


def content(columns: TokenColumns) -> list[object]:
    return [
        (e.id, e.labels, e.prompt_tokens_cut, [(s.ids.tolist(), s.first_scored, s.tokens_cut) for s in e.sequences])
        for e in columns
    ]


@few
@given(st.lists(examples, max_size=8), st.data())
def test_columns_hold_examples_and_take_is_what_a_list_would_give(
    given_: list[TokenizedExample], data: st.DataObject
) -> None:
    columns = TokenColumns.of(given_)
    assert len(columns) == len(given_) and columns.sequences == sum(len(e.sequences) for e in given_)
    numbers = data.draw(st.lists(st.integers(0, len(given_) - 1), max_size=10)) if given_ else []
    assert content(columns.take(numbers)) == content(TokenColumns.of([given_[number] for number in numbers]))
    assert content(columns) == content(columns.take(range(len(columns))))
    assert columns.scored_tokens.tolist() == [s.scored_tokens for e in given_ for s in e.sequences]


@few
@given(st.lists(st.lists(examples, max_size=4), min_size=1, max_size=4))
def test_columns_are_joined_one_after_another(parts: list[list[TokenizedExample]]) -> None:
    joined = TokenColumns.joined([TokenColumns.of(part) for part in parts])
    assert content(joined) == content(TokenColumns.of([example for part in parts for example in part]))
    types = [array.dtype.name for array in (joined.ids, joined.labels, joined.members)]
    assert types == ["int32", "int8", "int64"]


@few
@given(st.lists(examples, max_size=8), st.integers(1, 20))
def test_a_take_in_small_portions_is_the_same(given_: list[TokenizedExample], at_once: int) -> None:
    columns = TokenColumns.of(given_)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_columns, "_TOKENS_AT_ONCE", at_once)
        turned = columns.take(np.arange(len(columns))[::-1])
        laid_out = tokens_laid_out(columns)
    assert content(turned) == content(columns)[::-1]
    assert laid_out == tokens_laid_out(columns)


def tree_size(rows: list[tuple[int, ...]]) -> int:
    """The number of different beginnings, which are the nodes of the trie."""
    return len({row[:end] for row in rows for end in range(1, len(row) + 1)})


@few
@given(st.lists(examples, max_size=8), st.data())
def test_what_is_shared_is_what_a_trie_shares(given_: list[TokenizedExample], data: st.DataObject) -> None:
    rows = [[tuple(s.ids[:-1].tolist()) for s in example.sequences] for example in given_]
    expected = (sum(map(tree_size, rows)), sum(len(row) for some in rows for row in some))
    assert tokens_laid_out(TokenColumns.of(given_)) == expected
    mismatched = [
        replace(e, sequences=(*e.sequences, data.draw(sequences)), labels=(*e.labels, MISMATCHED)) for e in given_
    ]
    assert tokens_laid_out(TokenColumns.of(mismatched)) == expected


@few
@given(st.lists(st.text(st.characters(codec=None), max_size=5)), st.data())
def test_names_are_kept_whatever_they_hold(given_: list[str], data: st.DataObject) -> None:
    names = Names.of(given_)
    assert list(names) == given_ and len(names) == len(given_)
    numbers = data.draw(st.lists(st.integers(0, len(given_) - 1), max_size=10)) if given_ else []
    assert list(names.take(np.array(numbers, dtype=np.int64))) == [given_[number] for number in numbers]
    assert list(names[1:3]) == given_[1:3]
