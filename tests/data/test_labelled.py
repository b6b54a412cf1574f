"""Single answers with a label: read where the objective takes them, and refused by name where it needs pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_tokenizers import byte_level

from tiltlm.config import Config, DataConfig, HubConfig
from tiltlm.data.conversion import LoadedExamples, load_examples
from tiltlm.data.examples import Example, Message
from tiltlm.data.files.raw_rows import Row
from tiltlm.data.formats.labelled import COMPLETION_COLUMNS, LABEL_COLUMNS, LABELS, TURNED_COLUMNS, label_of
from tiltlm.data.formats.recognition import conversion, recognise_format
from tiltlm.data.preparation import prepare_data, read_data
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.errors import DataError
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import CHOSEN, REJECTED, Needs, Unit

HI, HELLO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}
AS_CHAT = ((Message("user", "Hi"),), (Message("assistant", "Hello."),))


def only(fields: dict[str, Any]) -> Example:
    row = Row("f:1", fields)
    name, _ = recognise_format([row])
    assert name in ("labelled", "labelled-chat")
    converted = conversion(name, "all")(row)
    assert converted.unused == []
    (example,) = converted.examples
    return example


def load(folder: Path, *rows: dict[str, Any], unit: Unit = "completion", **data: Any) -> LoadedExamples:
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_examples(folder / "p.jsonl", DataConfig(**data), HubConfig(), "train", unit)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": [HI], "completion": [HELLO]},
        {"prompt": [HI], "completion": "Hello."},
        {"prompt": [HI], "completion": [HI, HELLO]},
        {"prompt": "Hi", "completion": [HELLO]},
        {"messages": [HI, HELLO]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
        {"messages": [HI], "response": HELLO},
        {"instruction": "Hi", "input": "", "output": "Hello."},
        {"question": "Hi", "answer": "Hello."},
    ],
)
def test_chats_in_all_their_layouts(fields: dict[str, Any]) -> None:
    for label, expected in ((True, CHOSEN), (False, REJECTED)):
        example = only(fields | {"label": label})
        assert (example.prompt, *example.completions) == AS_CHAT and example.labels == (expected,)


def test_text_is_joined_as_it_stands() -> None:
    assert only({"prompt": "2 + 2 = ", "completion": "4", "label": 1}) == Example("f:1", "2 + 2 = ", ("4",), (CHOSEN,))


def test_system_and_tools_make_a_chat() -> None:
    example = only({"prompt": "Hi", "system": "S", "tools": [{"name": "f"}], "completion": "Hello.", "label": 0})
    assert example.prompt == (Message("system", "S"), *AS_CHAT[0]) and example.completions == (AS_CHAT[1],)
    assert example.tools is not None and '"f"' in example.tools


@pytest.mark.parametrize("completion", COMPLETION_COLUMNS)
@pytest.mark.parametrize("column", [*LABEL_COLUMNS, *TURNED_COLUMNS])
def test_every_column_of_labels(column: str, completion: str) -> None:
    for value in (True, False, 1, 0, 1.0, 0.0, "true", "False", "1", "0.0"):
        good = str(value).lower() in ("true", "1", "1.0")
        expected = CHOSEN if good != (column in TURNED_COLUMNS) else REJECTED
        assert only({"prompt": "Q:", completion: "A", column: value}).labels == (expected,)


@pytest.mark.parametrize("word", LABELS)
def test_words_that_are_labels(word: str) -> None:
    for written in (word, word.upper(), f" {word.replace('_', ' ')} ", word.replace("_", "-")):
        assert label_of(written) == LABELS[word]
    assert label_of(word, turned=True) == ({1: 0, 0: 1}[LABELS[word]] if word in ("true", "false", "0", "1") else None)


@pytest.mark.parametrize("value", ["yes", "maybe", 2, -1, 0.5, "", None, [1], {"label": 1}, float("nan")])
def test_what_is_no_label_is_none(value: object) -> None:
    assert label_of(value) is None


def test_rows_whose_label_is_not_understood_are_dropped_by_name(tmp_path: Path) -> None:
    row: dict[str, Any] = {"prompt": "Q:", "completion": "A"}
    others: list[dict[str, Any]] = [
        {"label": "maybe"},
        {"label": None},
        {},
        {"label": True, "thumbs_down": True},
        {"label": 7},
    ]
    loaded = load(tmp_path, *(row | {"label": n % 2} for n in range(8)), *(row | other for other in others))
    assert [example.labels for example in loaded.examples] == [(REJECTED,), (CHOSEN,)] * 4
    reasons = [(drop.id, drop.reason) for drop in loaded.dropped]
    not_known, none = "label not known", "no label"
    assert reasons == [
        (f"p.jsonl:{n}", reason)
        for n, reason in zip(range(9, 14), (not_known, none, none, not_known, not_known), strict=True)
    ]
    details = [drop.detail or "" for drop in loaded.dropped]
    assert "`label` is 'maybe'; known are true, 1" in details[0] and "say opposite things" in details[3]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Which?", "completion": "Robins.", "label": True},
        {"prompt": "Which?", "completion": "Robins.", "label": "false"},
        {"messages": [HI, HELLO], "label": False},
        {"prompt": "Which?", "response": "Robins.", "kto_tag": 1},
    ],
)
def test_an_objective_that_needs_pairs_refuses_them_and_names_those_that_do_not(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    assert load(tmp_path, row).source.format == "labelled"
    units = ("completion", "demonstration")
    taking = [name for unit in units for name, objective in OBJECTIVES.items() if objective.needs.unit == unit]
    for data in ({}, {"format": "labelled"}):
        with pytest.raises(DataError, match=r"Single labelled answers \(as for KTO\) are no pairs") as caught:
            load(tmp_path, row, unit="pair", **data)
        assert taking and f"Objectives that take them: {', '.join(taking)} (--loss.name" in str(caught.value)


def test_pairs_are_taken_by_an_objective_that_needs_none(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"prompt": "Q:", "chosen": "A", "rejected": "B", "label": True})
    assert [example.labels for example in loaded.examples] == [(CHOSEN, REJECTED)]
    assert loaded.source.format == "preference" and loaded.source.unused_columns == {"label": 1}


def test_notes_speak_of_examples(tmp_path: Path) -> None:
    row = {"prompt": "Q:", "completion": "A", "label": True}
    notes = " ".join(load(tmp_path, row, row, row, row | {"completion": "Q: A"}).notes)
    assert "1 of 4 examples have completions that begin with the prompt" in notes and "pair" not in notes


def test_mapped_columns(tmp_path: Path) -> None:
    row = {"q": "Q:", "a": "A", "meta": {"vote": "up"}}
    columns = {"prompt": "q", "completion": "a", "label": "meta.vote"}
    (example,) = load(tmp_path, row, columns=columns).examples
    assert example == Example("p.jsonl:1", "Q:", ("A",), (CHOSEN,))


def test_the_account_of_labelled_data() -> None:
    rows = [{"prompt": f"Q{n}:", "completion": " yes" * (1 + n), "label": n % 3 == 0} for n in range(12)]
    config = Config(data=DataConfig(eval_fraction=0.25))
    read = read_data(config, Needs(unit="completion"), rows)
    data = prepare_data(read, ExampleTokenizer(byte_level(), config.data), lambda done: None)
    assert (len(data.train), len(data.eval)) == (9, 3)
    number = {f"row {n + 1}": n for n in range(12)}
    for columns, split in ((data.train, data.report.train), (data.eval, data.report.eval)):
        assert columns.sequences == len(columns) and split is not None and split.pairs == len(columns)
        own = [number[name] for name in columns.names]
        assert columns.labels.tolist() == [int(n % 3 == 0) for n in own]
        lengths = [(n % 3 == 0, 2 + n) for n in own]  # a token a word, and one for the end
        chosen, rejected = ([length for good, length in lengths if good is wanted] for wanted in (True, False))
        assert (split.chosen_tokens.max if split.chosen_tokens else 0) == max(chosen, default=0)
        assert (split.rejected_tokens.max if split.rejected_tokens else 0) == max(rejected, default=0)
        assert split.chosen_longer is None and split.tokens_laid_out == split.tokens_without_sharing
    for shown in data.report.examples:
        good = number[shown.id] % 3 == 0
        answer, other = (shown.chosen, shown.rejected) if good else (shown.rejected, shown.chosen)
        assert answer is not None and answer.startswith(" yes") and other is None
        assert shown.prompt == f"Q{number[shown.id]}:" and shown.rejected_prompt is None
    assert any("The held-out examples are those of 3 prompts" in note for note in data.report.notes)
    assert not any("pair" in note for note in data.report.notes)
