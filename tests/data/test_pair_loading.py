from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_data import DIALOGUES, SHARED, polite_and_rude
from tiny_tokenizers import byte_level, pair_tokenizer

from tiltlm.config import Config, DataConfig, HubConfig
from tiltlm.data.conversion import LoadedExamples, load_examples
from tiltlm.data.preparation import examine_data, read_data
from tiltlm.errors import ConfigError, DataError


def load(path: Path, **settings: Any) -> LoadedExamples:
    return load_examples(path, DataConfig(**settings), HubConfig(), "train")


def written(folder: Path, *rows: object) -> Path:
    path = folder / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(prompt: object = "P", chosen: object = "a", rejected: object = "b") -> dict[str, object]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_the_account_of_a_source(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, row(), row(chosen=""), 3, row("Q")))
    assert [pair.id for pair in loaded.examples] == ["p.jsonl:1", "p.jsonl:4"]
    assert [(drop.id, drop.reason) for drop in loaded.dropped] == [
        ("p.jsonl:2", "empty completion"),
        ("p.jsonl:3", "unreadable row"),
    ]
    assert loaded.source.rows == 4 and loaded.source.role == "train" and loaded.source.files == ("p.jsonl",)
    assert loaded.source.format == "preference" and "recognised in 3 of the first 3 rows" in str(
        loaded.source.format_why
    )
    assert loaded.notes == []


def test_the_format_can_be_set(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, row()), format="chat")
    assert loaded.source.format == "chat" and loaded.source.format_why == "set by data.format"
    assert not isinstance(loaded.examples[0].prompt, str)


def test_nothing_usable_is_an_error_with_reasons_and_counts(tmp_path: Path) -> None:
    path = written(tmp_path, row(chosen=""), row(chosen="b"), row(chosen=" "))
    with pytest.raises(DataError) as caught:
        load(path)
    assert "none of its 3 rows, read as `preference`, can be used" in str(caught.value)
    assert "empty completion: 2 (first p.jsonl:1: `chosen` holds no text); identical completions: 1" in str(
        caught.value
    )


def test_nothing_readable_is_an_error_with_the_first_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of its first 2 rows can be read: unreadable row: 2 \(first p.jsonl:1"):
        load(written(tmp_path, 1, 2))


def test_no_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        load(written(tmp_path))


def test_an_unknown_format_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"p\.jsonl: the rows fit no format"):
        load(written(tmp_path, {"text": "x"}))


def test_ranked_pairs_needs_ranked_rows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.ranked_pairs has no effect"):
        load(written(tmp_path, row()), ranked_pairs="best-worst")
    ranking = {"prompt": "P", "answers": ["a", "b", ""], "scores": [3, 2, 1]}
    loaded = load(written(tmp_path, ranking))
    assert [pair.id for pair in loaded.examples] == ["p.jsonl:1#1>2"]
    assert [drop.id for drop in loaded.dropped] == ["p.jsonl:1#1>3", "p.jsonl:1#2>3"]
    assert loaded.source.rows == 1


def test_what_is_unusual_is_noted_and_kept(tmp_path: Path) -> None:
    further = row("S", " x\n\nHuman: y\n\nAssistant: z", " q")
    loaded = load(written(tmp_path, row(), row(), row(chosen="b", rejected="a"), further, row("T", "Ta", "Tb")))
    assert len(loaded.examples) == 5
    assert [note.split(" pairs ")[0] for note in loaded.notes] == ["1 of 5"] * 2
    for note, word in zip(loaded.notes, ["further turns", "begin with the prompt"], strict=True):
        assert word in note
    assert loaded.notes[0].endswith("First: p.jsonl:4.")


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "word"),
    [
        ("Why?", "Why? So.", "Why? No.", "begin with the prompt, which then stands there twice"),
        ("Why?", "\nWhy?\nSo.", "No.", "have a chosen completion that begins with the prompt, where the rejected"),
        ("Why?", "So.", "Why? No.", "have a rejected completion that begins with the prompt, where the chosen"),
        ([{"role": "user", "content": "Why?"}], "Why? So.", "No.", "have a chosen completion that begins with"),
        ("Why?", "Because", "Whyever", None),
    ],
)
def test_completions_that_begin_with_the_prompt(
    tmp_path: Path, prompt: object, chosen: str, rejected: str, word: str | None
) -> None:
    notes = load(written(tmp_path, row(prompt, chosen, rejected))).notes
    assert len(notes) == (word is not None) and all(str(word) in note and "First: p.jsonl:1." in note for note in notes)


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "null", " N/A ", "<NA>", "undefined"])
def test_words_for_nothing_as_a_whole_answer_are_noted(tmp_path: Path, word: str) -> None:
    loaded = load(written(tmp_path, row(), row("Q", rejected=word), row("R", chosen=word), row("S", chosen=f"{word}!")))
    assert loaded.notes == [
        "2 of 4 pairs have `nan`, `None`, `null` or such as a whole answer: a program may have written it where there "
        "was none. First: p.jsonl:2, p.jsonl:3."
    ]


def test_a_number_that_is_none_is_no_answer(tmp_path: Path) -> None:
    (drop,) = load(written(tmp_path, row(), row(rejected=float("nan")))).dropped
    assert drop.detail == "`rejected` is NaN, not text"


def test_an_answer_that_is_the_text_of_a_list_is_noted(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, row(), row("Q", rejected='["a", "b"]')))
    assert "1 of 2 pairs have the JSON text of a list as a whole answer" in loaded.notes[0]


def test_several_rejected_answers_are_a_pair_each(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, row(rejected=["b", "c", "a"]), row(chosen=["a", "c"], rejected=["d"]), row()))
    assert [(pair.id, pair.chosen, pair.rejected) for pair in loaded.examples] == [
        ("p.jsonl:1#1>1", "a", "b"),
        ("p.jsonl:1#1>2", "a", "c"),
        ("p.jsonl:2#1>1", "a", "d"),
        ("p.jsonl:2#2>1", "c", "d"),
        ("p.jsonl:3", "a", "b"),
    ]
    assert [(drop.id, drop.reason) for drop in loaded.dropped] == [("p.jsonl:1#1>3", "identical completions")]
    chats = [[{"role": "user", "content": "P"}, {"role": "assistant", "content": text}] for text in "abc"]
    loaded = load(written(tmp_path, {"chosen": chats[0], "rejected": chats[1:]}))
    assert len(loaded.examples) == 2 and loaded.source.format == "chat"


def test_a_verdict_that_the_other_one_contradicts_is_noted(tmp_path: Path) -> None:
    answers = {"prompt": "P", "response_0": "a", "response_1": "b"}
    rows = [answers | {"better_response_id": better, "safer_response_id": safer} for better, safer in [(0, 0), (0, 1)]]
    loaded = load(written(tmp_path, *rows))
    assert len(loaded.examples) == 2 and loaded.source.unused_columns == {}
    assert (
        "1 row (p.jsonl:2): `safer_response_id` names the other answer; `better_response_id` is used."
        in loaded.notes[0]
    )
    safer = load(written(tmp_path, *rows), columns={"better_response_id": "safer_response_id"})
    assert safer.examples[1].chosen != loaded.examples[1].chosen


@pytest.mark.parametrize(
    "fields",
    [
        {"context": [{"role": "user", "content": "P"}], "response1": "a", "response2": "b", "overall_preference": 0},
        {"prompt": "P", "response_1": "a", "response_2": "b", "preference_strength": "0"},
        {"prompt": "P", "response_a": "a", "response_b": "b", "winner": "tie"},
    ],
)
def test_no_preference_is_no_pair(tmp_path: Path, fields: dict[str, object]) -> None:
    with pytest.raises(DataError, match="no preference: 1"):
        load(written(tmp_path, fields))


def test_unused_columns_are_in_the_data_report(tmp_path: Path) -> None:
    path = written(tmp_path, row() | {"source": "x"}, row("Q") | {"source": "y"})
    read = read_data(Config(data=DataConfig(train=str(path))))
    report = examine_data(read, pair_tokenizer(byte_level()), lambda done: None)[0].report
    assert report.sources[0].unused_columns == {"source": 2}
    assert "Columns not used: `source` (2 rows)." in report.notes


cells = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.text(max_size=2), max_size=2)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.fixed_dictionaries({}, optional={"prompt": cells, "chosen": cells, "rejected": cells}) | cells))
def test_every_row_is_a_pair_or_dropped(rows: list[object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        loaded = load(written(Path(folder), row("first"), *rows), format="preference")
    found = [pair.id for pair in loaded.examples] + [drop.id for drop in loaded.dropped]
    # A row with several answers gives several pairs.
    assert {name.partition("#")[0] for name in found} == {f"p.jsonl:{line}" for line in range(1, len(rows) + 2)}
    assert len(set(found)) == len(found)
    assert loaded.source.rows == len(rows) + 1


# Whole data sets


def reasons(loaded: LoadedExamples) -> list[str]:
    return sorted(drop.reason for drop in loaded.dropped)


def test_dialogues() -> None:
    loaded = load(DIALOGUES)
    assert loaded.source.format == "dialogue" and loaded.source.rows == 39
    assert len(loaded.examples) == 37 and reasons(loaded) == ["empty completion", "identical completions"]
    assert all(str(pair.prompt).endswith("\n\nAssistant:") for pair in loaded.examples)
    assert len(loaded.notes) == 1 and loaded.notes[0].startswith("1 of 37 pairs have further turns")


def test_instructions(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, *polite_and_rude(40)))
    assert loaded.source.format == "instruction" and len(loaded.examples) == loaded.source.rows == 40


def real(name: str) -> LoadedExamples:
    return load(SHARED / name)


@pytest.mark.shared_data
def test_anthropic_hh() -> None:
    loaded = real("hh-harmless-base-test.jsonl.gz")
    assert loaded.source.format == "dialogue" and loaded.source.rows == 2312
    assert len(loaded.examples) == 2308 and reasons(loaded) == ["empty completion"] * 4
    assert all(str(pair.prompt).endswith("\n\nAssistant:") for pair in loaded.examples)
    assert len(loaded.notes) == 1 and loaded.notes[0].startswith("5 of 2308 pairs have further turns")


@pytest.mark.shared_data
def test_polite_rude() -> None:
    loaded = real("polite-rude.json")
    assert loaded.source.format == "instruction" and loaded.source.rows == 1100
    assert len(loaded.examples) == 1094 and reasons(loaded) == ["identical completions"] * 6


@pytest.mark.shared_data
def test_ultrafeedback() -> None:
    loaded = real("ultrafeedback-1000.jsonl.gz")
    assert loaded.source.format == "preference" and loaded.source.rows == 1000
    assert reasons(loaded) == ["empty completion"] * 2 + ["identical completions"] * 4


@pytest.mark.shared_data
def test_film_reviews_are_no_pairs() -> None:
    with pytest.raises(DataError, match="`split`, `label`, `stars`, `text`"):
        real("imdb-5000.jsonl.gz")
