"""Rows in memory go the way of a file's rows: the same formats, the same account, names of their own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_tokenizers import byte_level

from tiltlm.config import Config, DataConfig, HubConfig
from tiltlm.data.conversion import load_examples
from tiltlm.data.preparation import prepare_data, read_data
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.errors import ConfigError, DataError
from tiltlm.objectives.interface import Needs

ROWS: list[dict[str, Any]] = [
    {"prompt": "Q:", "chosen": "A", "rejected": "B", "further": 1},
    {"prompt": "Q:", "chosen": "A", "rejected": "A", "further": None},
    {"prompt": "R:", "chosen": "A", "rejected": ["B", "C"], "further": 3},
    {"prompt": None, "chosen": "A", "rejected": "B", "further": 4},
]


def load(rows: Iterable[Any], **data: Any) -> Any:
    return load_examples(rows, DataConfig(**data), HubConfig(), "train")


@pytest.mark.parametrize("form", [list, tuple, iter])
def test_a_list_of_dicts_is_read_as_its_json_lines(form: Any, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    given, read = load(form(ROWS)), load_examples(path, DataConfig(), HubConfig(), "train")
    assert [example.id for example in given.examples] == ["row 1", "row 3#1>1", "row 3#1>2"]
    renamed = [dataclasses.replace(e, id=e.id.replace("row ", "p.jsonl:")) for e in given.examples]
    assert renamed == read.examples and given.notes == read.notes
    assert [(drop.id, drop.reason) for drop in given.dropped] == [
        ("row 2", "identical completions"),
        ("row 4", "unreadable row"),
    ]
    name = "list of dicts" if form is not iter else "list_iterator"
    assert given.source == dataclasses.replace(read.source, name=name, files=())


def test_arrays_and_their_numbers_are_lists_and_numbers() -> None:
    rows = [
        {"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "A"}]}
        | {"label": number % 2 == 0, "tags": [], "scores": [1.0, 2.0]}
        for number in range(4)
    ]
    arrays = [
        {
            name: np.array(value, dtype=object) if isinstance(value, list) else np.bool_(value)
            for name, value in row.items()
        }
        for row in rows
    ]
    given, listed = (load_examples(form, DataConfig(), HubConfig(), "train", "completion") for form in (arrays, rows))
    assert given == listed


def test_a_dataset_of_the_library_is_read_row_by_row() -> None:
    import datasets

    rows = [
        row | {"rejected": [row["rejected"]] if isinstance(row["rejected"], str) else row["rejected"]} for row in ROWS
    ]
    dataset = datasets.Dataset.from_list(rows)
    loaded = load(dataset)
    assert loaded.source.name == "Dataset" and loaded.source.rows == 4
    assert [example.id for example in loaded.examples] == [example.id for example in load(rows).examples]
    with pytest.raises(DataError, match=r"a DatasetDict with the keys train is no list of rows.* one split"):
        load(datasets.DatasetDict({"train": dataset}))


def test_keys_that_a_dataset_only_fills_with_null_are_not_there() -> None:
    import datasets

    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes.", "name": "bot"}]
    answers = {"chosen": messages, "rejected": [messages[0], {"role": "assistant", "content": "No."}]}
    (example,) = load(datasets.Dataset.from_list([answers])).examples
    assert example == load([answers]).examples[0]


def test_what_is_no_table_of_rows_is_refused_or_dropped() -> None:
    with pytest.raises(DataError, match="a dict with the keys prompt, chosen is no list of rows: give a list of dicts"):
        load({"prompt": ["Q:"], "chosen": ["A"]})
    with pytest.raises(DataError, match="list of dicts holds no rows"):
        load([])
    loaded = load([ROWS[0], "text", 3])
    assert [(drop.id, drop.detail) for drop in loaded.dropped] == [
        ("row 2", "text, not an object of columns"),
        ("row 3", "a number, not an object of columns"),
    ]


@pytest.mark.parametrize("option", ["train_split", "subset"])
def test_options_of_files_have_no_effect(option: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{option} has no effect on rows in memory: remove it"):
        load(ROWS, **{option: "other"})


def test_training_and_held_out_rows_in_memory() -> None:
    config = Config()
    train = [{"prompt": f"Q{n}:", "chosen": "yes", "rejected": "no"} for n in range(6)]
    read = read_data(config, Needs(), train, train[:2])
    assert [source.source.name for source in read.loaded] == ["list of dicts", "list of dicts"]
    assert [example.id for example in read.train] == [f"row {n}" for n in range(3, 7)]
    data = prepare_data(read, ExampleTokenizer(byte_level(), config.data), lambda done: None)
    assert list(data.eval.names) == ["row 1", "row 2"] and len(data.train) == 4
    split = prepare_data(read_data(config, train=train), ExampleTokenizer(byte_level(), config.data), lambda done: None)
    assert len(split.train) == 5 and len(split.eval) == 1
