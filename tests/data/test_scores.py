"""Scores of answers and ranked lists kept whole: which columns say them, and what is refused without."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_tokenizers import byte_level

from tiltlm.config import Config, DataConfig, HubConfig, LossConfig
from tiltlm.data.conversion import LoadedExamples, load_examples
from tiltlm.data.preparation import prepare_data, read_data
from tiltlm.data.token_cache import cache_key
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.data.tokens.token_store import map_columns, write_columns
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.errors import ConfigError, DataError
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import CHOSEN, REJECTED, Scores, Unit

PAIR: dict[str, Any] = {"prompt": "Q:", "chosen": "A", "rejected": "B"}
LIST: dict[str, Any] = {"prompt": "Q:", "completions": ["A", "B", "C"]}


def load(
    folder: Path, *rows: dict[str, Any], unit: Unit = "pair", scores: Scores = "value", **data: Any
) -> LoadedExamples:
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_examples(folder / "p.jsonl", DataConfig(**data), HubConfig(), "train", unit, scores)


@pytest.mark.parametrize(
    ("beside", "scores"),
    [
        ({"score_chosen": 7.5, "score_rejected": 2}, (7.5, 2.0)),
        ({"chosen_score": 7.5, "rejected_score": 2}, (7.5, 2.0)),
        ({"chosen_rating": 5, "rejected_rating": "3"}, (5.0, 3.0)),
        ({"chosen-rating": 5, "rejected-rating": 3}, (5.0, 3.0)),
        ({"chosen_reward": 0.25, "rejected_reward": -1}, (0.25, -1.0)),
        ({"scores": {"chosen": 5, "rejected": 3}}, (5.0, 3.0)),
        ({"margin": 1.5}, (1.5, 0.0)),
        ({"Margin": 1.5}, (1.5, 0.0)),
        ({"score_chosen": 7.5, "score_rejected": 2, "margin": 1}, (7.5, 2.0)),
        ({"chosen_rank": 1, "rejected_rank": 2, "chosen_score": 9, "rejected_score": 1}, (9.0, 1.0)),
    ],
)
def test_scores_beside_pairs(tmp_path: Path, beside: dict[str, Any], scores: tuple[float, float]) -> None:
    loaded = load(tmp_path, PAIR | beside)
    assert [example.scores for example in loaded.examples] == [scores]
    unread = set(loaded.source.unused_columns or {}) - {"margin"}
    assert unread == set()


def test_of_lists_cut_into_pairs_each_has_its_own(tmp_path: Path) -> None:
    loaded = load(tmp_path, LIST | {"scores": [1, 3, 2]})
    assert [(example.chosen, example.scores) for example in loaded.examples] == [
        ("B", (3.0, 1.0)),
        ("C", (2.0, 1.0)),
        ("B", (3.0, 2.0)),
    ]


def test_how_much_better_is_a_score(tmp_path: Path) -> None:
    row = {"prompt": "Q", "response_1": "A", "response_2": "B", "preference_strength": -2}
    assert [example.scores for example in load(tmp_path, row).examples] == [(2.0, 0.0)]


@pytest.mark.parametrize(
    ("row", "reason", "said"),
    [
        (PAIR, "no scores", "score_chosen and score_rejected"),
        (PAIR | {"chosen_rank": 1, "rejected_rank": 2}, "no scores", "margin"),
        (LIST | {"ranks": [1, 2, 3]}, "no scores", "of which the data has the order alone"),
        (LIST | {"best": 1}, "no scores", "scores, ratings or rewards"),
        (PAIR | {"score_chosen": 1, "score_rejected": 1}, "not scored higher", "1, is not above the rejected one's, 1"),
        (PAIR | {"score_chosen": 1, "score_rejected": 2}, "not scored higher", "2"),
        (PAIR | {"score_chosen": 16777217, "score_rejected": 16777216}, "not scored higher", "1.67772e+07"),
        (PAIR | {"score_chosen": 1e300, "score_rejected": 0}, "no scores", "beyond what is kept"),
    ],
)
def test_pairs_without_scores_are_refused_by_what_reads_them(
    tmp_path: Path, row: dict[str, Any], reason: str, said: str
) -> None:
    """Named row by row, and the whole data where none is left."""
    scored = PAIR | {"prompt": "R:", "score_chosen": 2, "score_rejected": 1}
    if "completions" not in row:
        loaded = load(tmp_path, scored, scored, scored, row)
        assert len(loaded.examples) == 3 and [drop.reason for drop in loaded.dropped] == [reason]
        assert said in str(loaded.dropped[0].detail)
    with pytest.raises(DataError, match=reason) as caught:
        load(tmp_path, row)
    assert said in str(caught.value)


def test_scores_are_kept_where_nothing_reads_them(tmp_path: Path) -> None:
    (with_scores,) = load(tmp_path, PAIR | {"score_chosen": 1, "score_rejected": 2}, scores="none").examples
    (without,) = load(tmp_path, PAIR | {"score_chosen": 1e300, "score_rejected": 2}, scores="none").examples
    assert with_scores.scores == (1.0, 2.0) and without == dataclasses.replace(with_scores, scores=None)


# Lists


def test_lists_are_kept_whole_best_first(tmp_path: Path) -> None:
    loaded = load(tmp_path, LIST | {"scores": [1, 3, 2]}, unit="list")
    (example,) = loaded.examples
    assert (example.id, example.completions, example.scores) == ("p.jsonl:1", ("B", "C", "A"), (3.0, 2.0, 1.0))
    assert example.labels == (CHOSEN, REJECTED, REJECTED) and example.names[0] == "completion 1"


@pytest.mark.parametrize(
    ("order", "completions", "labels"),
    [
        ({"ranks": [2, 1, 3]}, ("B", "A", "C"), (CHOSEN, REJECTED, REJECTED)),
        ({"best": 2}, ("C", "A", "B"), (CHOSEN, REJECTED, REJECTED)),
        ({"scores": [3, 1, 3]}, ("A", "C", "B"), (CHOSEN, CHOSEN, REJECTED)),
    ],
)
def test_an_order_will_do_where_no_value_is_read(
    tmp_path: Path, order: dict[str, Any], completions: tuple[str, ...], labels: tuple[int, ...]
) -> None:
    (example,) = load(tmp_path, LIST | order, unit="list", scores="order").examples
    assert (example.completions, example.labels) == (completions, labels)
    assert example.scores is not None and sorted(example.scores, reverse=True) == list(example.scores)


def test_a_pair_is_a_list_of_two(tmp_path: Path) -> None:
    (by_label,) = load(tmp_path, PAIR, unit="list", scores="order").examples
    assert (by_label.completions, by_label.scores) == (("A", "B"), (1.0, 0.0))
    (by_score,) = load(tmp_path, PAIR | {"score_chosen": 5, "score_rejected": 2}, unit="list").examples
    assert by_score.scores == (5.0, 2.0)
    with pytest.raises(DataError, match="no scores"):
        load(tmp_path, PAIR, unit="list")


def test_whole_chats_in_a_list_lose_the_prompt_they_repeat(tmp_path: Path) -> None:
    hi = {"role": "user", "content": "Hi"}
    chats = [[hi, {"role": "assistant", "content": text}] for text in ("A", "B")]
    (example,) = load(tmp_path, {"messages": [hi], "completions": chats, "scores": [1, 2]}, unit="list").examples
    assert [one.content for text in example.completions for one in text if not isinstance(one, str)] == ["B", "A"]


def test_how_lists_are_cut_is_not_asked_where_they_are_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.ranked_pairs has no effect on an objective that learns from lists"):
        load(tmp_path, LIST | {"scores": [1, 3, 2]}, unit="list", ranked_pairs="best-worst")


def test_a_list_whose_scores_single_precision_does_not_tell_apart_is_dropped(tmp_path: Path) -> None:
    close = LIST | {"scores": [16777217, 16777216, 16777216]}
    loaded = load(tmp_path, close, LIST | {"scores": [1, 2, 2]}, unit="list", scores="order")
    assert [drop.reason for drop in loaded.dropped] == ["no ranking"] and len(loaded.examples) == 1


def test_a_list_in_which_the_same_answer_has_two_scores_is_dropped(tmp_path: Path) -> None:
    same = LIST | {"completions": ["A", "B", "B"], "scores": [1, 3, 2]}
    equal = LIST | {"completions": ["A", "B", "B"], "scores": [1, 3, 3]}
    loaded = load(tmp_path, same, equal, unit="list")
    assert [drop.reason for drop in loaded.dropped] == ["identical completions"] and len(loaded.examples) == 1


# Through tokens and the cache


def columns_of(folder: Path, loss: str, *rows: dict[str, Any]) -> tuple[TokenColumns, str, str]:
    """The training columns, a key of the cache, and what the report says."""
    text = "".join(json.dumps(row | {"prompt": f"{n}{row['prompt']}"}) + "\n" for n, row in enumerate(rows))
    (folder / "p.jsonl").write_text(text, encoding="utf-8")
    config = Config(data=DataConfig(train=str(folder / "p.jsonl")), loss=LossConfig(loss))
    read = read_data(config, OBJECTIVES[loss].needs)
    tokenizer = ExampleTokenizer(byte_level(), config.data)
    prepared = prepare_data(read, tokenizer, lambda done: None)
    report = prepared.report
    assert report.quality is not None
    said = " ".join([*report.notes, *(finding.sentence for finding in report.quality.findings)])
    return prepared.train, cache_key(read, tokenizer), said


def test_tokens_keep_scores_in_memory_in_files_and_when_taken(tmp_path: Path) -> None:
    columns, _, said = columns_of(tmp_path, "infonca", *[LIST | {"scores": [1, 3.5, 2]}] * 6)
    assert columns.scores.dtype == np.float32 and columns.scores.tolist() == [3.5, 2.0, 1.0] * len(columns)
    assert columns[0].scores == (3.5, 2.0, 1.0) and "list" in said and "pair" not in said
    write_columns(columns, tmp_path / "columns.arrow")
    mapped = map_columns(tmp_path / "columns.arrow")
    assert mapped.scores.tolist() == columns.scores.tolist()
    for again in (columns.take([2, 0]), TokenColumns.joined([columns.take([2]), columns.take([0])])):
        assert again.scores.tolist() == [3.5, 2.0, 1.0] * 2
    assert TokenColumns.of(columns).scores.tolist() == columns.scores.tolist()


def test_without_scores_there_are_none(tmp_path: Path) -> None:
    columns, _, _ = columns_of(tmp_path, "sigmoid", *[PAIR] * 4)
    assert np.isnan(columns.scores).all() and columns[0].scores is None


def test_other_scores_are_another_entry_of_the_cache(tmp_path: Path) -> None:
    keys = {
        columns_of(tmp_path, loss, *[PAIR | {"score_chosen": high, "score_rejected": 1}] * 4)[1]
        for loss in ("sigmoid", "odpo")
        for high in (2, 3)
    }
    assert len(keys) == 4


def test_objectives_that_read_scores_say_so() -> None:
    assert all(objective.needs.scores != "none" for objective in OBJECTIVES.values() if objective.needs.unit == "list")
