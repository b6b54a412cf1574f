"""The order of a list of answers is known, or the data is refused: being first is not being best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltlm.config import DataConfig, HubConfig
from tiltlm.data.conversion import LoadedExamples, load_examples
from tiltlm.data.examples import Message
from tiltlm.data.formats.ranking import BEST_COLUMNS, LIST_COLUMNS, SIGNS, all_pairs
from tiltlm.errors import DataError

WORSE, BETTER = "Birds.", "The blackbird."


def load(folder: Path, *rows: dict[str, Any], **settings: Any) -> LoadedExamples:
    path = folder / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_examples(path, DataConfig(**settings), HubConfig(), "train")


def only(loaded: LoadedExamples) -> tuple[object, object]:
    (pair,) = loaded.examples
    return pair.chosen, pair.rejected


def error(folder: Path, *rows: dict[str, Any], **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(folder, *rows, **settings)
    return str(caught.value)


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("spelling", ["{}", "{}s", "Capital"])
@pytest.mark.parametrize("name", SIGNS)
def test_every_name_of_an_order_orders(tmp_path: Path, name: str, spelling: str, as_text: bool) -> None:
    spelt = name.replace("_", "-").title() if spelling == "Capital" else spelling.format(name)
    values: list[Any] = [SIGNS[name] * 1, SIGNS[name] * 5]
    values = [str(value) for value in values] if as_text else values
    row = {"prompt": "Which?", "responses": [WORSE, BETTER]}
    loaded = load(tmp_path, row | {spelt: values})
    assert only(loaded) == (BETTER, WORSE)
    assert f"ordered by `{spelt}`, {'higher' if SIGNS[name] > 0 else 'lower'} is better" in str(
        loaded.source.format_why
    )
    items = [{"text": text, spelt: value} for text, value in zip((WORSE, BETTER), values, strict=True)]
    assert only(load(tmp_path, {"prompt": "Which?", "responses": items})) == (BETTER, WORSE)


@pytest.mark.parametrize("column", LIST_COLUMNS)
def test_a_list_that_nothing_orders_is_refused(tmp_path: Path, column: str) -> None:
    message = error(tmp_path, {"prompt": "Which?", column: ["one", "two", "three"]})
    assert f"`{column}` holds 3 answers, and nothing that is known to order them" in message
    assert "score, rating, reward" in message and "Columns found: `prompt`" in message
    # Nor is it taken best first where the format is set.
    assert "no order: 1" in error(tmp_path, {"prompt": "Which?", column: ["one", "two"]}, format="ranked")


def test_a_column_that_may_order_is_named_and_can_be_mapped(tmp_path: Path) -> None:
    row: dict[str, Any] = {"prompt": "Which?", "responses": [WORSE, BETTER], "toxicity": [0.9, 0.1]}
    assert "--data.columns scores=toxicity where higher is better, else ranks=toxicity" in error(tmp_path, row)
    assert only(load(tmp_path, row, columns={"ranks": "toxicity"})) == (BETTER, WORSE)
    row = {"prompt": "Which?", "responses": [WORSE, BETTER], "preference": 1}
    assert "--data.columns best_index=preference" in error(tmp_path, row)
    assert only(load(tmp_path, row, columns={"best_index": "preference"})) == (BETTER, WORSE)


@pytest.mark.parametrize("labels", [[True, False, True], [1, 0, 1]])
def test_labelled_steps_are_no_alternatives(tmp_path: Path, labels: list[object]) -> None:
    row = {"prompt": "2 + 2 * 2?", "completions": ["2 * 2 = 4", "2 + 4 = 5", "So 6"], "labels": labels}
    assert "labelled steps or samples (stepwise supervision)" in error(tmp_path, row)


def test_labels_beside_ratings_do_not_order(tmp_path: Path) -> None:
    row = {"prompt": "Which?", "responses": [WORSE, BETTER], "labels": [True, False], "ratings": [1, 5]}
    loaded = load(tmp_path, row)
    assert only(loaded) == (BETTER, WORSE) and loaded.source.unused_columns == {"labels": 1}


def test_single_answers_are_no_pairs(tmp_path: Path) -> None:
    assert "Each row has one answer" in error(tmp_path, {"prompt": "Which?", "completion": BETTER})
    assert "fit no format" in error(tmp_path, {"prompt": "Which?", "response": BETTER, "response2": WORSE})


@pytest.mark.parametrize("name", BEST_COLUMNS)
def test_the_best_by_number_or_text(tmp_path: Path, name: str) -> None:
    for best in (1, "1", BETTER):
        loaded = load(tmp_path, {"prompt": "Which?", "responses": [WORSE, BETTER, "Who knows?"], name: best})
        assert [(pair.chosen, pair.rejected) for pair in loaded.examples] == [(BETTER, WORSE), (BETTER, "Who knows?")]


def test_numbers_that_do_not_count_from_0_stop_the_reading(tmp_path: Path) -> None:
    row = {"prompt": "Which?", "responses": [WORSE, BETTER], "best": 2}
    assert "p.jsonl:1: `best` is 2 where there are 2 completions" in error(tmp_path, row)


@given(ranking=st.permutations(range(4)), first=st.sampled_from([0, 1]))
def test_a_ranking_is_read_where_both_readings_agree(
    tmp_path_factory: pytest.TempPathFactory, ranking: list[int], first: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    row = {"prompt": "Which?", "responses": list("abcd"), "ranking": [place + first for place in ranking]}
    ranks = {letter: ranking[at] for at, letter in enumerate("abcd")}
    best_first = {"abcd"[number]: place for place, number in enumerate(ranking)}
    if ranks != best_first:
        assert "order not known: 1" in error(folder, row) and "the two disagree" in error(folder, row)
        assert "--data.columns ranks=ranking" in error(folder, row)
        loaded = load(folder, row, columns={"ranks": "ranking"})
    else:
        loaded = load(folder, row)
    assert len(loaded.examples) == 6
    assert all(ranks[str(pair.chosen)] < ranks[str(pair.rejected)] for pair in loaded.examples)


def test_orders_that_disagree_are_noted(tmp_path: Path) -> None:
    same = {"prompt": "Why?", "responses": ["a", "b"], "scores": [1, 2], "ranks": [2, 1]}
    other = {"prompt": "Which?", "responses": [WORSE, BETTER], "scores": [1, 2], "ranks": [1, 2]}
    loaded = load(tmp_path, same, other)
    assert (loaded.examples[1].chosen, loaded.examples[1].rejected) == (BETTER, WORSE)
    assert loaded.notes == ["1 row (p.jsonl:2): `ranks` orders the completions otherwise than `scores`, which is used."]


@given(scores=st.lists(st.integers(0, 3), max_size=5))
def test_pairs_are_those_of_different_scores(scores: list[float]) -> None:
    pairs = list(all_pairs(scores))
    assert all(scores[better] > scores[worse] for better, worse in pairs)
    assert len(pairs) == sum(a != b for at, a in enumerate(scores) for b in scores[:at])


USER = {"role": "user", "content": "Which?"}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER], "responses": [WORSE, BETTER], "rewards": [0.1, 0.9]},
        {"instruction": "Which?", "generations": [WORSE, BETTER], "ratings": [1, 5]},
        {"question": "Which?", "answers": [{"text": WORSE, "pm_score": 0}, {"text": BETTER, "pm_score": 3}]},
        {
            "context": [USER],
            "completions": [
                {"rank": 0, "completion": [{"role": "assistant", "content": BETTER}]},
                {"rank": 1, "completion": [{"role": "assistant", "content": WORSE}]},
            ],
        },
        {
            "contents": [{"role": "user", "parts": [{"text": "Which?"}]}],
            "completions": [
                {"score": score, "completion": {"role": "model", "parts": [{"text": text}]}}
                for score, text in ((0, WORSE), (1, BETTER))
            ],
        },
        {
            "instruction": "Which?",
            "completions": [{"response": WORSE, "overall_score": 2}, {"response": BETTER, "overall_score": 8}],
        },
    ],
)
def test_ranked_chats_in_the_layouts_that_people_have(tmp_path: Path, row: dict[str, Any]) -> None:
    (pair,) = load(tmp_path, row).examples
    assert pair.prompt == (Message("user", "Which?"),)
    assert (pair.chosen, pair.rejected) == ((Message("assistant", BETTER),), (Message("assistant", WORSE),))


def test_ratings_by_other_names_of_the_sides(tmp_path: Path) -> None:
    row = {"prompt": "Which?", "winner": BETTER, "loser": WORSE, "winner_score": 1, "loser_score": 2}
    loaded = load(tmp_path, row)
    assert loaded.source.unused_columns == {} and "by `winner_score`" in loaded.notes[0]


@pytest.mark.parametrize(
    ("ratings", "column"),
    [
        ({"chosen_score": 1, "rejected_score": 5}, "chosen_score"),
        ({"chosen-rating": "1", "rejected-rating": "5"}, "chosen-rating"),
        ({"score_chosen": 1.0, "score_rejected": 5.0}, "score_chosen"),
        ({"Chosen Reward": -1, "Rejected Reward": 0}, "Chosen Reward"),
        ({"chosen_rank": 2, "rejected_rank": 1}, "chosen_rank"),
        ({"meta": {"chosen_rating": 1, "rejected_rating": 5}}, "meta.chosen_rating"),
        ({"meta": '{"chosen_rating": 1, "rejected_rating": 5}'}, "meta.chosen_rating"),
        ({"scores": {"chosen": 1, "rejected": 5}}, "scores.chosen"),
        ({"ranks": {"chosen": 2, "rejected": "1"}}, "ranks.chosen"),
    ],
)
def test_a_chosen_answer_rated_below_the_rejected_one_is_noted(
    tmp_path: Path, ratings: dict[str, Any], column: str
) -> None:
    row = {"prompt": "Which?", "chosen": BETTER, "rejected": WORSE}
    loaded = load(tmp_path, row, row | {"prompt": "Why?"} | ratings)
    note = f"1 row (p.jsonl:2): the chosen answer is rated below the rejected one by `{column}`. They are kept."
    assert note in loaded.notes and len(loaded.examples) == 2
    assert loaded.source.unused_columns == {}
    turned = {"chosen_score": 5, "rejected_score": 1}
    assert load(tmp_path, row | turned).notes == []


@pytest.mark.parametrize("as_chats", [False, True])
@pytest.mark.parametrize(
    ("ratings", "column"),
    [({"rating": [9.0, 8.0]}, "rating"), ({"scores": "[2, 1, 3]"}, None), ({"ranks": ["1", "2"]}, "ranks")],
)
def test_ratings_of_a_list_that_holds_both_answers_are_compared(
    tmp_path: Path, as_chats: bool, ratings: dict[str, Any], column: str | None
) -> None:
    """Distilabel leaves its candidates and their ratings beside the pair that was made of them."""
    row: dict[str, Any] = {"prompt": "Which?", "chosen": BETTER, "rejected": WORSE}
    if as_chats:
        question = {"role": "user", "content": "Which?"}
        row |= {side: [question, {"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
    loaded = load(tmp_path, row | {"generations": [WORSE, BETTER]} | ratings)
    below = [note for note in loaded.notes if "rated below" in note]
    assert ([column] if column else []) == [note.split("`")[1] for note in below] and len(loaded.examples) == 1
    assert loaded.source.unused_columns == ({} if column else {"generations": 1, "scores": 1})
    assert not load(tmp_path, row | {"generations": [BETTER, WORSE]} | ratings).notes or column is None
