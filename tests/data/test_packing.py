"""Packed rows, against what the definition of `subtree_end` says token by token."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiltlm.data.tokens.packing import micro_batches, pack_pairs, pack_sequences, shared_prefix, tree_size
from tiltlm.records import PackedBatch

from tiltlm.data.tokens import packing
from tiltlm.data.tokens.token_columns import TokenizedExample, TokenizedSequence

many, few = settings(max_examples=60, deadline=None), settings(max_examples=20, deadline=None)
# So few different tokens that sequences share prefixes by chance; 0 is what padding holds.
tokens = st.integers(0, 2)


@pytest.fixture(scope="module", autouse=True, params=[1, packing.ROW_COLUMNS])
def row_columns(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything holds for rows as short as can be, of which small sequences need several, and for those in use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "ROW_COLUMNS", request.param)
        yield


def sequence(ids: Iterable[int], first_scored: int) -> TokenizedSequence:
    return TokenizedSequence(np.array(list(ids), dtype=np.int32), first_scored)


@st.composite
def families(draw: st.DrawFn) -> list[TokenizedSequence]:
    """Sequences of 2 to 20 tokens, many of which begin as an earlier one, repeat it, or are a part of it."""
    known: list[list[int]] = [[]]
    result = []
    for _ in range(draw(st.integers(1, 9))):
        stem = draw(st.sampled_from(known))
        stem = stem[: draw(st.integers(0, len(stem)))]
        ids = stem + draw(st.lists(tokens, min_size=max(0, 2 - len(stem)), max_size=20 - len(stem)))
        known.append(ids)
        result.append(sequence(ids, draw(st.integers(1, len(ids) - 1))))
    return result


@st.composite
def pairs_of_few_prompts(draw: st.DrawFn) -> list[TokenizedExample]:
    prompts = draw(st.lists(st.lists(tokens, min_size=1, max_size=8), min_size=1, max_size=4))
    pairs = []
    for number in range(draw(st.integers(1, 12))):
        # Mostly one prompt; a tokenizer may write its end differently on the two sides.
        prompt = draw(st.sampled_from(prompts))
        other = prompt if draw(st.booleans()) else draw(st.sampled_from(prompts))
        chosen, rejected = (
            sequence(start + draw(st.lists(tokens, min_size=1, max_size=12)), len(start)) for start in (prompt, other)
        )
        pairs.append(TokenizedExample.pair(f"p:{number}", chosen, rejected))
    return pairs


def visible(batch: PackedBatch) -> list[list[list[int]]]:
    """For each row and column i the columns j that i sees: j <= i < subtree_end[j]."""
    rows = batch.subtree_end_RL.tolist()
    return [[[j for j in range(i + 1) if i < ends[j]] for i in range(len(ends))] for ends in rows]


def row_of_segment(batch: PackedBatch) -> dict[int, int]:
    length = batch.tokens_RL.shape[1]
    rows: dict[int, int] = {}
    for at, segment in zip(batch.score_at_S.tolist(), batch.score_segment_S.tolist(), strict=True):
        assert rows.setdefault(segment, at // length) == at // length, "a sequence lies in one row"
    return rows


def used_columns(batch: PackedBatch) -> list[set[int]]:
    """For each row the columns that a scored position sees. All others are padding."""
    seen, length = visible(batch), batch.tokens_RL.shape[1]
    used: list[set[int]] = [set() for _ in seen]
    for at in batch.score_at_S.tolist():
        used[at // length].update(seen[at // length][at % length])
    return used


def prefixes(sequences: Iterable[TokenizedSequence]) -> set[tuple[int, ...]]:
    """The nodes of the trie of all tokens but the last of each sequence."""
    return {tuple(s.ids[:length].tolist()) for s in sequences for length in range(1, len(s.ids))}


def fields(batch: PackedBatch) -> list[object]:
    tensors = [batch.tokens_RL, batch.positions_RL, batch.subtree_end_RL]
    tensors += [batch.score_at_S, batch.score_token_S, batch.score_segment_S]
    assert all(tensor.dtype == torch.int64 for tensor in tensors)
    return [tensor.tolist() for tensor in tensors]


@many
@given(families(), st.booleans())
def test_a_scored_position_sees_its_own_prefix_and_nothing_else(
    sequences: list[TokenizedSequence], trees: bool
) -> None:
    batch = pack_sequences(sequences, trees)
    seen, length = visible(batch), batch.tokens_RL.shape[1]
    scored: dict[int, int] = defaultdict(int)
    for at, segment in zip(batch.score_at_S.tolist(), batch.score_segment_S.tolist(), strict=True):
        ids, first = sequences[segment].ids.tolist(), sequences[segment].first_scored
        context = first + scored[segment]
        row, columns = at // length, seen[at // length][at % length]
        assert batch.tokens_RL[row, columns].tolist() == ids[:context]
        assert batch.positions_RL[row, columns].tolist() == list(range(context))
        scored[segment] += 1


@many
@given(families(), st.booleans())
def test_every_completion_token_is_scored_once_and_in_order(sequences: list[TokenizedSequence], trees: bool) -> None:
    batch = pack_sequences(sequences, trees)
    scored: dict[int, list[int]] = {segment: [] for segment in range(len(sequences))}
    for token, segment in zip(batch.score_token_S.tolist(), batch.score_segment_S.tolist(), strict=True):
        scored[segment].append(token)
    assert list(scored.values()) == [s.ids[s.first_scored :].tolist() for s in sequences]
    assert batch.sequences == len(sequences) and batch.trees == trees


@many
@given(families())
def test_a_row_holds_each_shared_prefix_once(sequences: list[TokenizedSequence]) -> None:
    batch = pack_sequences(sequences)
    used, rows = used_columns(batch), row_of_segment(batch)
    for row, columns in enumerate(used):
        assert len(columns) == len(prefixes(s for segment, s in enumerate(sequences) if rows[segment] == row))


@many
@given(families())
def test_tree_size_is_the_size_of_the_trie(sequences: list[TokenizedSequence]) -> None:
    assert tree_size(sequences) == len(prefixes(sequences))
    assert tree_size(reversed(sequences)) == tree_size(sequences)


@many
@given(families(), st.booleans())
def test_padding_sees_itself_alone_and_is_seen_by_nothing(sequences: list[TokenizedSequence], trees: bool) -> None:
    batch = pack_sequences(sequences, trees)
    seen = visible(batch)
    for row, columns in enumerate(used_columns(batch)):
        assert columns == set(range(len(columns))), "padding is on the right"
        for column in range(len(columns), batch.tokens_RL.shape[1]):
            assert seen[row][column] == [column]
            assert batch.tokens_RL[row, column] == batch.positions_RL[row, column] == 0
    assert max(len(columns) for columns in used_columns(batch)) == batch.tokens_RL.shape[1]


@many
@given(families())
def test_without_trees_a_row_is_a_sequence(sequences: list[TokenizedSequence]) -> None:
    batch = pack_sequences(sequences, trees=False)
    length = max(len(s.ids) for s in sequences) - 1
    assert batch.tokens_RL.shape == (len(sequences), length)
    assert row_of_segment(batch) == {segment: segment for segment in range(len(sequences))}
    for row, s in enumerate(sequences):
        own = len(s.ids) - 1
        assert batch.tokens_RL[row].tolist() == s.ids[:-1].tolist() + [0] * (length - own)
        assert batch.positions_RL[row, :own].tolist() == list(range(own))
        assert batch.subtree_end_RL[row, :own].tolist() == [own] * own


def test_a_pair_by_hand() -> None:
    """Prompt 5 6, answers 7 8 and 7 9 4: the stem goes on into the answers, and 8 needs no column."""
    batch = pack_pairs([TokenizedExample.pair("a", sequence([5, 6, 7, 8], 2), sequence([5, 6, 7, 9, 4], 2))])
    assert batch.tokens_RL.tolist() == [[5, 6, 7, 9]]
    assert batch.positions_RL.tolist() == [[0, 1, 2, 3]]
    assert batch.subtree_end_RL.tolist() == [[4, 4, 4, 4]]
    scored = zip(batch.score_segment_S.tolist(), batch.score_at_S.tolist(), batch.score_token_S.tolist(), strict=True)
    assert sorted(scored) == [(0, 1, 7), (0, 2, 8), (1, 1, 7), (1, 2, 9), (1, 3, 4)]


def test_two_branches_by_hand() -> None:
    batch = pack_pairs([TokenizedExample.pair("a", sequence([5, 6, 7, 7, 1], 2), sequence([5, 6, 8, 8, 1], 2))])
    assert batch.tokens_RL.tolist() == [[5, 6, 7, 7, 8, 8]]
    assert batch.positions_RL.tolist() == [[0, 1, 2, 3, 2, 3]]
    assert batch.subtree_end_RL.tolist() == [[6, 6, 4, 4, 6, 6]]


def test_answers_to_one_prompt_share_it_across_pairs() -> None:
    prompt = [3] * 30
    pairs = [
        TokenizedExample.pair(str(n), sequence([*prompt, n, 1], 30), sequence([*prompt, n + 50, 1], 30))
        for n in range(4, 9)
    ]
    other = TokenizedExample.pair("other", sequence([9] * 20, 10), sequence([9] * 12 + [8] * 8, 10))
    batch = pack_pairs([pairs[0], other, *pairs[1:]])
    rows = row_of_segment(batch)
    assert len({rows[segment] for segment in (0, 1, *range(4, 12))}) == 1
    # The prompt and ten first answer tokens; 19 and 19 columns of the other pair, of which they share 12.
    assert sum(map(len, used_columns(batch))) == (30 + 10) + (19 + 19 - 12)


def test_nothing_to_pack_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to pack"):
        pack_sequences([])


@few
@given(st.lists(tokens, max_size=6), st.lists(tokens, max_size=6))
def test_shared_prefix(a: list[int], b: list[int]) -> None:
    length = shared_prefix(np.array(a, dtype=np.int32), np.array(b, dtype=np.int32))
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]


@few
@given(pairs_of_few_prompts(), st.booleans())
def test_pairs_are_numbered_chosen_first(pairs: list[TokenizedExample], trees: bool) -> None:
    sequences = [s for pair in pairs for s in (pair.chosen, pair.rejected)]
    assert fields(pack_pairs(pairs, trees)) == fields(pack_sequences(sequences, trees))
    assert pack_pairs(pairs, trees).sequences == 2 * len(pairs)


# Micro-batches


def columns_of(group: Sequence[TokenizedExample], trees: bool) -> int:
    return pack_pairs(group, trees).tokens_RL.numel()


@many
@given(pairs_of_few_prompts(), st.integers(1, 150), st.booleans())
def test_micro_batches_hold_every_pair_once_within_the_budget(
    pairs: list[TokenizedExample], budget: int, trees: bool
) -> None:
    groups = micro_batches(pairs, budget, trees)
    assert Counter(pair.id for group in groups for pair in group) == Counter(pair.id for pair in pairs)
    for group in groups:
        assert group
        assert len(group) == 1 or columns_of(group, trees) <= budget


@few
@given(pairs_of_few_prompts(), st.integers(1, 150), st.booleans())
def test_the_same_pairs_are_laid_out_the_same_way(pairs: list[TokenizedExample], budget: int, trees: bool) -> None:
    first, again = (micro_batches(pairs, budget, trees) for _ in range(2))
    assert [[pair.id for pair in group] for group in first] == [[pair.id for pair in group] for group in again]
    for group in first:
        assert fields(pack_pairs(group, trees)) == fields(pack_pairs(group, trees))


@few
@given(pairs_of_few_prompts(), st.booleans())
def test_a_large_budget_makes_one_group_and_a_small_one_a_group_a_pair(
    pairs: list[TokenizedExample], trees: bool
) -> None:
    assert len(micro_batches(pairs, 10_000, trees)) == 1
    assert len(micro_batches(pairs, 1, trees)) == len(pairs)


def pair_without_sharing(number: int, prompt: list[int], length: int) -> TokenizedExample:
    start = 1000 * (number + 1)
    sides = (sequence([*prompt, *range(begin, begin + length)], len(prompt)) for begin in (start, start + 500))
    return TokenizedExample.pair(str(number), *sides)


def test_pairs_of_one_prompt_do_not_burst_the_budget() -> None:
    """They share a tree that is longer than any pair's, and every row of the group becomes as long."""
    pairs = [pair_without_sharing(number, [1, 2], 50) for number in range(2)]
    pairs += [pair_without_sharing(number, [number, 3], 50) for number in range(4, 8)]
    groups = micro_batches(pairs, 620)
    assert sum(len(group) for group in groups) == 6
    assert all(columns_of(group, True) <= 620 for group in groups)


def test_equal_pairs_fill_the_budget() -> None:
    pairs = [pair_without_sharing(number, [number, 2], 10) for number in range(12)]
    size = tree_size((pairs[0].chosen, pairs[0].rejected))
    assert [len(group) for group in micro_batches(pairs, 4 * size)] == [4, 4, 4]
    assert [len(group) for group in micro_batches(pairs, 4 * size - 1)] == [3, 3, 3, 3]
    # Two rows a pair, without the last token.
    assert [len(group) for group in micro_batches(pairs, 4 * 2 * 11, trees=False)] == [4, 4, 4]


def test_no_pairs_are_no_groups() -> None:
    assert micro_batches([], 100) == []
