"""Packed rows, against what the definition of `subtree_end` says token by token."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import packed, sequence

from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.objectives.interface import CHOSEN, MISMATCHED, REJECTED
from tiltlm.plan import tries
from tiltlm.plan.batches import MicroBatch, Plan
from tiltlm.plan.packing import plan
from tiltlm.plan.row_layout import BLOCKS, DENSE, SEQUENCES, Layout
from tiltlm.plan.tries import SortedSequences, shared_prefix

many, few = settings(max_examples=60, deadline=None), settings(max_examples=20, deadline=None)
# So few different tokens that sequences share prefixes by chance; 0 is what padding holds.
tokens = st.integers(0, 2)
budgets = st.integers(1, 150)
LABELS = [(CHOSEN, REJECTED), (CHOSEN,), (REJECTED,), (REJECTED, MISMATCHED), (CHOSEN, CHOSEN, REJECTED, MISMATCHED)]


layouts = st.sampled_from([DENSE, Layout(row=1), Layout(row=16, multiple=8, runs=True), BLOCKS, SEQUENCES])
"""Everything holds for rows as short as can be, of which small sequences need several, and for those in use."""


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
def examples_of_few_prompts(draw: st.DrawFn, labels: Sequence[tuple[int, ...]] = LABELS) -> TokenColumns:
    """Examples of one to four sequences, which may have other prompts, as no layout may depend on it."""
    prompts = draw(st.lists(st.lists(tokens, min_size=1, max_size=8), min_size=1, max_size=4))
    examples = []
    for number in range(draw(st.integers(1, 12))):
        own, chosen_labels = draw(st.sampled_from(prompts)), draw(st.sampled_from(labels))
        sequences = []
        for label in chosen_labels:
            # Mostly one prompt; a tokenizer may write its end differently on the two sides.
            same = label != MISMATCHED and draw(layouts)
            prompt = own if same else draw(st.sampled_from(prompts))
            sequences.append(sequence(prompt + draw(st.lists(tokens, min_size=1, max_size=12)), len(prompt)))
        examples.append(TokenizedExample(f"e:{number}", tuple(sequences), chosen_labels))
    return TokenColumns.of(examples)


@st.composite
def planned(draw: st.DrawFn) -> tuple[TokenColumns, Plan]:
    """Some examples of columns, in any order, as a plan whose reference value of a token is the token's place."""
    columns = draw(examples_of_few_prompts())
    numbers = draw(st.lists(st.sampled_from(range(len(columns))), min_size=1, unique=True))
    places = np.arange(columns.scored_starts[-1], dtype=np.float32)
    return columns, plan(columns, numbers, draw(budgets), draw(layouts), places)


def visible(batch: MicroBatch) -> list[list[list[int]]]:
    """For each row and column i the columns j that i sees: j <= i < subtree_end[j]."""
    rows = batch.subtree_end_RL.tolist()
    return [[[j for j in range(i + 1) if i < ends[j]] for i in range(len(ends))] for ends in rows]


def row_of_sequence(batch: MicroBatch) -> dict[int, int]:
    length = batch.tokens_RL.shape[1]
    rows: dict[int, int] = {}
    for at, number in zip(batch.score_at_S.tolist(), batch.score_sequence_S.tolist(), strict=True):
        assert rows.setdefault(number, at // length) == at // length, "a sequence lies in one row"
    return rows


def used_columns(batch: MicroBatch) -> list[set[int]]:
    """For each row the columns that a scored position sees. All others are padding."""
    seen, length = visible(batch), batch.tokens_RL.shape[1]
    used: list[set[int]] = [set() for _ in seen]
    for at in batch.score_at_S.tolist():
        used[at // length].update(seen[at // length][at % length])
    return used


def prefixes(sequences: Iterable[TokenizedSequence]) -> set[tuple[int, ...]]:
    """The nodes of the trie of all tokens but the last of each sequence."""
    return {tuple(s.ids[:length].tolist()) for s in sequences for length in range(1, len(s.ids))}


def own_sequences(columns: TokenColumns, batch: MicroBatch) -> list[int]:
    """The numbers of a micro-batch's sequences in the columns, example by example."""
    return [n for e in batch.examples.tolist() for n in range(columns.members[e], columns.members[e + 1])]


def fields(batch: MicroBatch) -> list[object]:
    tensors = [batch.tokens_RL, batch.positions_RL, batch.subtree_end_RL, batch.tokens_N]
    tensors += [batch.score_at_S, batch.score_token_S, batch.score_sequence_S, batch.offset_S]
    assert all(tensor.dtype == torch.int64 for tensor in tensors)
    assert batch.labels_N.dtype == torch.int8
    others = [batch.labels_N.tolist(), batch.examples.tolist(), batch.places.tolist(), batch.laid_out, batch.trees]
    return [*(tensor.tolist() for tensor in tensors), *others]


# One micro-batch


@many
@given(families(), layouts)
def test_a_scored_position_sees_its_own_prefix_and_nothing_else(
    sequences: list[TokenizedSequence], layout: Layout
) -> None:
    batch = packed(sequences, layout)
    seen, length = visible(batch), batch.tokens_RL.shape[1]
    scored: dict[int, int] = defaultdict(int)
    for at, number in zip(batch.score_at_S.tolist(), batch.score_sequence_S.tolist(), strict=True):
        ids, first = sequences[number].ids.tolist(), sequences[number].first_scored
        context = first + scored[number]
        row, columns = at // length, seen[at // length][at % length]
        assert batch.tokens_RL[row, columns].tolist() == ids[:context]
        assert batch.positions_RL[row, columns].tolist() == list(range(context))
        scored[number] += 1


@many
@given(families(), layouts)
def test_every_completion_token_is_scored_once_and_in_order(sequences: list[TokenizedSequence], layout: Layout) -> None:
    batch = packed(sequences, layout)
    scored: dict[int, list[int]] = {number: [] for number in range(len(sequences))}
    for token, number in zip(batch.score_token_S.tolist(), batch.score_sequence_S.tolist(), strict=True):
        scored[number].append(token)
    assert list(scored.values()) == [s.ids[s.first_scored :].tolist() for s in sequences]
    assert batch.sequences == len(sequences) and batch.trees == layout.trees
    assert batch.tokens_N.tolist() == [s.scored_tokens for s in sequences]


@many
@given(families())
def test_a_row_holds_each_shared_prefix_once(sequences: list[TokenizedSequence]) -> None:
    batch = packed(sequences)
    used, rows = used_columns(batch), row_of_sequence(batch)
    for row, columns in enumerate(used):
        assert len(columns) == len(prefixes(s for number, s in enumerate(sequences) if rows[number] == row))
    assert batch.laid_out == sum(map(len, used))


@many
@given(families(), layouts)
def test_padding_sees_itself_alone_and_is_seen_by_nothing(sequences: list[TokenizedSequence], layout: Layout) -> None:
    batch = packed(sequences, layout)
    seen = visible(batch)
    for row, columns in enumerate(used_columns(batch)):
        assert columns == set(range(len(columns))), "padding is on the right"
        for column in range(len(columns), batch.tokens_RL.shape[1]):
            assert seen[row][column] == [column]
            assert batch.tokens_RL[row, column] == batch.positions_RL[row, column] == 0
    assert layout.rounded(max(len(columns) for columns in used_columns(batch))) == batch.tokens_RL.shape[1]


@many
@given(families())
def test_without_trees_a_row_is_a_sequence(sequences: list[TokenizedSequence]) -> None:
    batch = packed(sequences, SEQUENCES)
    length = max(len(s.ids) for s in sequences) - 1
    assert batch.tokens_RL.shape == (len(sequences), length)
    assert row_of_sequence(batch) == {number: number for number in range(len(sequences))}
    assert batch.laid_out == sum(len(s.ids) - 1 for s in sequences)
    for row, s in enumerate(sequences):
        own = len(s.ids) - 1
        assert batch.tokens_RL[row].tolist() == s.ids[:-1].tolist() + [0] * (length - own)
        assert batch.positions_RL[row, :own].tolist() == list(range(own))
        assert batch.subtree_end_RL[row, :own].tolist() == [own] * own


def test_a_pair_by_hand() -> None:
    """Prompt 5 6, answers 7 8 and 7 9 4: the stem goes on into the answers, and 8 needs no column."""
    pair = TokenizedExample.pair("a", sequence([5, 6, 7, 8], 2), sequence([5, 6, 7, 9, 4], 2))
    made = plan(TokenColumns.of([pair]), [0], 100, DENSE, np.array([-1, -2, -3, -4, -5], dtype=np.float32))
    (batch,) = made.micro_batches
    assert batch.tokens_RL.tolist() == [[5, 6, 7, 9]]
    assert batch.positions_RL.tolist() == [[0, 1, 2, 3]]
    assert batch.subtree_end_RL.tolist() == [[4, 4, 4, 4]]
    assert batch.reference_S is not None
    lists = (batch.score_sequence_S, batch.score_at_S, batch.score_token_S, batch.offset_S, batch.reference_S)
    scored = zip(*(tensor.tolist() for tensor in lists), strict=True)
    assert sorted(scored) == [(0, 1, 7, 0, -1), (0, 2, 8, 1, -2), (1, 1, 7, 0, -3), (1, 2, 9, 1, -4), (1, 3, 4, 2, -5)]
    assert (batch.labels_N.tolist(), batch.tokens_N.tolist()) == ([CHOSEN, REJECTED], [2, 3])
    assert (made.examples, made.completions, made.laid_out) == (1, 2, 4)


def test_two_branches_by_hand() -> None:
    batch = packed([sequence([5, 6, 7, 7, 1], 2), sequence([5, 6, 8, 8, 1], 2)])
    assert batch.tokens_RL.tolist() == [[5, 6, 7, 7, 8, 8]]
    assert batch.positions_RL.tolist() == [[0, 1, 2, 3, 2, 3]]
    assert batch.subtree_end_RL.tolist() == [[6, 6, 4, 4, 6, 6]]


def test_answers_to_one_prompt_share_it_across_examples() -> None:
    prompt = [3] * 30
    pairs = [
        TokenizedExample.pair(str(n), sequence([*prompt, n, 1], 30), sequence([*prompt, n + 50, 1], 30))
        for n in range(4, 9)
    ]
    other = TokenizedExample.pair("other", sequence([9] * 20, 10), sequence([9] * 12 + [8] * 8, 10))
    columns = TokenColumns.of([pairs[0], other, *pairs[1:]])
    (batch,) = plan(columns, range(6), 10_000, DENSE).micro_batches
    rows, own = row_of_sequence(batch), own_sequences(columns, batch)
    assert len({rows[own.index(n)] for n in (0, 1, *range(4, 12))}) == 1
    # The prompt and ten first answer tokens; 19 and 19 columns of the other pair, of which they share 12.
    assert batch.laid_out == sum(map(len, used_columns(batch))) == (30 + 10) + (19 + 19 - 12)


def test_a_mismatched_answer_lies_with_the_prompt_it_stands_behind() -> None:
    one, two = [3] * 30, [4] * 30
    examples = [
        TokenizedExample("a", (sequence([*one, 5, 1], 30), sequence([*one, 6, 1], 30)), (CHOSEN, MISMATCHED)),
        TokenizedExample("b", (sequence([*two, 6, 1], 30), sequence([*two, 5, 1], 30)), (REJECTED, MISMATCHED)),
    ]
    made = plan(TokenColumns.of(examples), [0, 1], 10_000, DENSE)
    assert (made.examples, made.completions) == (2, 2)
    assert made.laid_out == 2 * (30 + 2)


def test_a_plan_looks_at_no_example_but_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = TokenColumns.of(
        [TokenizedExample.pair(str(n), sequence([3, n], 1), sequence([4, n], 1)) for n in range(5)]
    )

    def of_all(columns: TokenColumns) -> np.ndarray:
        raise AssertionError("all of the data was gone through")

    monkeypatch.setattr(TokenColumns, "scored_tokens", property(of_all))
    assert plan(columns, [1, 3], 100, DENSE).examples == 2


def test_rows_are_padded_to_what_suits_the_device() -> None:
    columns = TokenColumns.of(
        [TokenizedExample.pair(str(n), sequence([n] * 9, 4), sequence([n] * 7 + [8] * 30, 4)) for n in range(7)]
    )
    made = plan(columns, range(7), 192, Layout(row=64, multiple=32, runs=True))
    assert [tuple(batch.tokens_RL.shape) for batch in made.micro_batches] == [(3, 64), (3, 64), (1, 64)]
    # A row that holds less than the budget, and would not once it is padded.
    made = plan(columns, range(2), 126, Layout(row=64, multiple=64, runs=True))
    assert [tuple(batch.tokens_RL.shape) for batch in made.micro_batches] == [(1, 64), (1, 64)]


def test_nothing_to_pack_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to pack"):
        plan(TokenColumns.of([]), [], 100, DENSE)


# Sorted sequences


def of_sequences(sequences: Sequence[TokenizedSequence]) -> SortedSequences:
    columns = TokenColumns.of([TokenizedExample("all", tuple(sequences), (CHOSEN,) * len(sequences))])
    return SortedSequences(columns, np.arange(len(sequences)))


@many
@given(families(), st.data())
def test_tree_size_is_the_size_of_the_trie(sequences: list[TokenizedSequence], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(range(len(sequences))), min_size=1, unique=True))
    found = of_sequences(sequences)
    assert found.tree_size(chosen) == len(prefixes(sequences[number] for number in chosen))
    assert found.tree_size(reversed(chosen)) == found.tree_size(chosen)


@many
@given(families())
def test_a_stem_is_the_common_prefix_of_any_two(sequences: list[TokenizedSequence]) -> None:
    found = of_sequences(sequences)
    order = found.sort(range(len(sequences)))
    assert [sequences[n].ids[:-1].tolist() for n in order] == sorted(s.ids[:-1].tolist() for s in sequences)
    for place, before in enumerate(order):
        for after in order[place + 1 :]:
            common = prefixes([sequences[before]]) & prefixes([sequences[after]])
            assert found.stem(before, after) == len(common)


@many
@given(families())
def test_groups_by_prompt_hold_every_sequence_once(sequences: list[TokenizedSequence]) -> None:
    groups = of_sequences(sequences).by_prompt(range(len(sequences)))
    assert sorted(number for group in groups for number in group) == list(range(len(sequences)))


@few
@given(st.lists(tokens, max_size=6), st.lists(tokens, max_size=6))
def test_shared_prefix(a: list[int], b: list[int]) -> None:
    length = shared_prefix(np.array(a, dtype=np.int32), np.array(b, dtype=np.int32))
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]


@few
@given(examples_of_few_prompts(), budgets, layouts)
def test_sequences_are_compared_once(columns: TokenColumns, budget: int, layout: Layout) -> None:
    """However the plan is cut: each with its neighbour in sorted order."""
    compared = []

    def counted(a: np.ndarray, b: np.ndarray) -> int:
        compared.append((a, b))
        return shared_prefix(a, b)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tries, "shared_prefix", counted)
        plan(columns, range(len(columns)), budget, layout)
    assert len(compared) == columns.sequences - 1


# Plans


@many
@given(examples_of_few_prompts(), budgets, layouts)
def test_micro_batches_hold_every_example_once_within_the_budget(
    columns: TokenColumns, budget: int, layout: Layout
) -> None:
    made = plan(columns, range(len(columns)), budget, layout)
    assert Counter(e for batch in made.micro_batches for e in batch.examples.tolist()) == Counter(range(len(columns)))
    for batch in made.micro_batches:
        assert len(batch.examples) == 1 or batch.tokens_RL.numel() <= budget


@many
@given(planned())
def test_every_scored_token_has_its_place_offset_and_reference_value(given_: tuple[TokenColumns, Plan]) -> None:
    """Told from the examples, one sequence and one token at a time."""
    columns, made = given_
    places: dict[int, tuple[int, int, int]] = {}
    for number in range(columns.sequences):
        one = columns.sequence(number)
        for offset, token in enumerate(one.ids[one.first_scored :].tolist()):
            places[len(places)] = (number, offset, token)
    found = []
    for batch in made.micro_batches:
        assert batch.reference_S is not None
        assert batch.reference_S.dtype == torch.float32
        assert batch.reference_S.tolist() == batch.places.tolist(), "the very token's own"
        own, lists = own_sequences(columns, batch), (batch.score_sequence_S, batch.offset_S, batch.score_token_S)
        for place, number, offset, token in zip(batch.places.tolist(), *(each.tolist() for each in lists), strict=True):
            assert places[place] == (own[number], offset, token)
            found.append(place)
    planned_sequences = {n for batch in made.micro_batches for n in own_sequences(columns, batch)}
    assert sorted(found) == [place for place, (number, _, _) in places.items() if number in planned_sequences]


@many
@given(planned())
def test_values_written_to_their_places_come_back_in_the_order_of_the_columns(
    given_: tuple[TokenColumns, Plan],
) -> None:
    columns, made = given_
    values = np.full(columns.scored_starts[-1], -1)
    for batch in made.micro_batches:
        values[batch.places] = batch.score_token_S.numpy()
        for number in own_sequences(columns, batch):
            one = columns.sequence(number)
            own = slice(columns.scored_starts[number], columns.scored_starts[number + 1])
            assert values[own].tolist() == one.ids[one.first_scored :].tolist()


@many
@given(planned())
def test_a_plan_knows_its_sizes_and_its_sequences_before_any_pass(given_: tuple[TokenColumns, Plan]) -> None:
    columns, made = given_
    assert made.examples == sum(len(batch.examples) for batch in made.micro_batches)
    assert made.completions == sum(int((batch.labels_N != MISMATCHED).sum()) for batch in made.micro_batches)
    assert made.laid_out == sum(sum(map(len, used_columns(batch))) for batch in made.micro_batches)
    for batch in made.micro_batches:
        own = own_sequences(columns, batch)
        assert batch.sequences == len(own)
        assert batch.labels_N.tolist() == columns.labels[own].tolist()
        assert batch.tokens_N.tolist() == columns.scored_tokens[own].tolist()


@few
@given(examples_of_few_prompts(), layouts)
def test_sequences_are_laid_out_alike_whether_of_one_example_or_of_several(
    columns: TokenColumns, layout: Layout
) -> None:
    (together,) = plan(columns, range(len(columns)), 10_000, layout).micro_batches
    own = [columns.sequence(number) for number in own_sequences(columns, together)]
    alone = packed(own, layout)
    for name in ("tokens_RL", "positions_RL", "subtree_end_RL"):
        assert torch.equal(getattr(together, name), getattr(alone, name)), name
    assert scored_list(together) == scored_list(alone)  # of equal sequences either may come first


def scored_list(batch: MicroBatch) -> list[tuple[int, ...]]:
    lists = (batch.score_sequence_S, batch.offset_S, batch.score_at_S, batch.score_token_S)
    return sorted(zip(*(tensor.tolist() for tensor in lists), strict=True))


@few
@given(examples_of_few_prompts(), budgets, layouts)
def test_the_same_examples_are_laid_out_the_same_way(columns: TokenColumns, budget: int, layout: Layout) -> None:
    """And those of columns that hold them alone as those of columns that hold others too."""
    first, again = (plan(columns, range(len(columns)), budget, layout) for _ in range(2))
    assert [fields(batch) for batch in first.micro_batches] == [fields(batch) for batch in again.micro_batches]
    numbers = list(range(len(columns)))[::2]
    some, taken = (
        plan(columns, numbers, budget, layout),
        plan(columns.take(numbers), range(len(numbers)), budget, layout),
    )
    for one, other in zip(some.micro_batches, taken.micro_batches, strict=True):
        assert one.examples.tolist() == [numbers[e] for e in other.examples.tolist()]
        assert torch.equal(one.tokens_RL, other.tokens_RL)
        assert torch.equal(one.score_at_S, other.score_at_S)


@few
@given(examples_of_few_prompts(), layouts)
def test_a_large_budget_makes_one_micro_batch_and_a_small_one_one_an_example(
    columns: TokenColumns, layout: Layout
) -> None:
    assert len(plan(columns, range(len(columns)), 10_000, layout).micro_batches) == 1
    assert len(plan(columns, range(len(columns)), 1, layout).micro_batches) == len(columns)


@few
@given(examples_of_few_prompts())
def test_without_a_reference_there_are_no_reference_values(columns: TokenColumns) -> None:
    assert all(batch.reference_S is None for batch in plan(columns, range(len(columns)), 50, DENSE).micro_batches)


def test_on_a_device_a_micro_batch_is_the_same() -> None:
    batch = packed([sequence([5, 6, 7, 8], 2), sequence([5, 6, 7, 9, 4], 2)])
    there = batch.to(torch.device("meta"))
    assert all(getattr(there, name).is_meta for name in ("tokens_RL", "score_at_S", "labels_N", "offset_S", "tokens_N"))
    assert there.reference_S is None and there.examples is batch.examples and there.trees == batch.trees
    assert fields(batch.to(torch.device("cpu"))) == fields(batch)


def pair_without_sharing(number: int, prompt: list[int], length: int) -> TokenizedExample:
    start = 1000 * (number + 1)
    chosen, rejected = (
        sequence([*prompt, *range(begin, begin + length)], len(prompt)) for begin in (start, start + 500)
    )
    return TokenizedExample.pair(str(number), chosen, rejected)


def test_pairs_of_one_prompt_do_not_burst_the_budget() -> None:
    """They share a tree that is longer than any pair's, and every row of the group becomes as long."""
    pairs = [pair_without_sharing(number, [1, 2], 50) for number in range(2)]
    pairs += [pair_without_sharing(number, [number, 3], 50) for number in range(4, 8)]
    made = plan(TokenColumns.of(pairs), range(6), 620, DENSE)
    assert made.examples == 6
    assert all(batch.tokens_RL.numel() <= 620 for batch in made.micro_batches)


def test_equal_pairs_fill_the_budget() -> None:
    pairs = TokenColumns.of([pair_without_sharing(number, [number, 2], 10) for number in range(12)])
    size = SortedSequences(pairs, np.arange(2)).tree_size(range(2))

    def sizes(budget: int, layout: Layout = DENSE) -> list[int]:
        return [len(batch.examples) for batch in plan(pairs, range(12), budget, layout).micro_batches]

    assert sizes(4 * size) == [4, 4, 4]
    assert sizes(4 * size - 1) == [3, 3, 3, 3]
    # Two rows a pair, without the last token.
    assert sizes(4 * 2 * 11, SEQUENCES) == [4, 4, 4]
