"""Malformed input: never a traceback, never a silent loss. The long form is `benchmarks/fuzz_readers.py`."""

from __future__ import annotations

import gzip
import json
import random
import struct
import tracemalloc
import warnings
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from malformed_files import make_case
from malformed_rows import TEMPLATES, row
from reading_checks import read
from tiny_tokenizers import byte_level, outcomes, pair_tokenizer

from tiltlm.config import Config, DataConfig, HubConfig
from tiltlm.data.conversion import LoadedExamples, load_examples
from tiltlm.data.files import encodings, file_rows
from tiltlm.data.files.file_rows import read_rows
from tiltlm.data.files.raw_rows import Row
from tiltlm.data.formats.notation import decoded, is_broken_messages, is_list_notation
from tiltlm.data.formats.pairing import MOST_PAIRS
from tiltlm.data.preparation import examine_data, read_data
from tiltlm.data.row_names import row_of
from tiltlm.errors import DataError
from tiltlm.runs.data_account import DroppedRow

PAIR = {"prompt": "p", "chosen": "c", "rejected": "r"}


CALLS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{{ c.function.name }}({{ c.function.arguments.a }}){% endfor %}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def load(source: Any, **data: Any) -> LoadedExamples:
    return load_examples(source, DataConfig(train="rows", **data), HubConfig(), "train")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_every_input_is_used_listed_or_refused(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    read(make_case(rng), tmp_path_factory.mktemp("any"), rng)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_rows_that_are_damaged_are_sound_before(kind: str) -> None:
    loaded = load_examples([row(kind, n) for n in range(3)], DataConfig(), HubConfig(), "train", "completion")
    assert not loaded.dropped
    assert {row_of(example.id) for example in loaded.examples} == {"row 1", "row 2", "row 3"}


# The account


def test_rows_are_used_dropped_or_left_out_in_the_report(tmp_path: Path) -> None:
    many = {"prompt": "two", "chosen": ["good", "better"], "rejected": "bad"}
    lines = [{**PAIR, "prompt": f"p{n}"} for n in range(6)] + [many, {"prompt": "x"}, {**PAIR, "chosen": "r"}]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines) + "{broken\n")
    config = Config(data=DataConfig(train=str(path), max_train_pairs=3, max_eval_pairs=1))
    (source,) = examine_data(read_data(config), pair_tokenizer(byte_level()), lambda done: None)[0].report.sources
    assert (source.rows, source.rows_dropped) == (10, 3)
    used, left_out = source.rows_used or 0, source.rows_left_out or 0
    assert used + 3 + left_out == 10
    assert 2 <= used <= 4


def test_held_out_data_have_an_account_of_their_own(tmp_path: Path) -> None:
    for name, prompts in {"train": "abcd", "eval": "dxy"}.items():
        lines = (json.dumps({**PAIR, "prompt": prompt}) + "\n" for prompt in prompts)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines) + "[]\n")
    config = Config(data=DataConfig(train=str(tmp_path / "train.jsonl"), eval=str(tmp_path / "eval.jsonl")))
    report = examine_data(read_data(config), pair_tokenizer(byte_level()), lambda done: None)[0].report
    counts = [(source.rows, source.rows_used, source.rows_dropped, source.rows_left_out) for source in report.sources]
    assert counts == [(5, 3, 2, 0), (4, 3, 1, 0)]


@pytest.mark.parametrize(
    "example, its_row",
    [
        ("p.jsonl:3", "p.jsonl:3"),
        ("p.json#4#1>2", "p.json#4"),
        ("row 7#10>3", "row 7"),
        ("a#1>2.jsonl:5", "a#1>2.jsonl:5"),
    ],
)
def test_an_example_is_traced_to_its_row(example: str, its_row: str) -> None:
    assert row_of(example) == its_row


def test_several_objects_on_a_line_have_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text("{}{}\n{}{} {}\n".replace("{}", json.dumps(PAIR)))
    names = [one.id for one in read_rows(tmp_path / "p.json")]
    assert names == ["p.json:1", "p.json:1.2", "p.json:2", "p.json:2.2", "p.json:2.3"]


# JSON


@pytest.mark.parametrize("wrong", ["[" * 100_000 + "]" * 100_000, "9" * 5000, '{"a": 1, "a": 2}'])
def test_an_element_that_is_wrong_but_whole_costs_itself_alone(tmp_path: Path, wrong: str) -> None:
    elements = [
        json.dumps(PAIR),
        f'{{"prompt": [{wrong}, "] }}"]}}',
        '{"chosen": "c", "rejected": "r"}',
        json.dumps(PAIR),
    ]
    for layout in (
        "[{}]".replace("{}", ", ".join(elements)),
        "\n".join([json.dumps(PAIR, indent=1), *elements[1:]]),
    ):
        (tmp_path / "p.json").write_text(layout)
        rows = list(read_rows(tmp_path / "p.json"))
        assert [isinstance(one, DroppedRow) for one in rows] == [False, True, False, False]


def test_where_reading_goes_on_is_said(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(
        f'[\n{json.dumps(PAIR)},\n{{"prompt": oops}},\n{{"other": 1}},\n{json.dumps(PAIR)}\n]'
    )
    (listed,) = [one for one in read_rows(tmp_path / "p.json") if isinstance(one, DroppedRow)]
    assert listed.detail is not None and listed.detail.endswith("at line 3; reading goes on at line 5")


# Arrow: what a damaged file says of where its values lie is never followed


def damaged_offsets(count: int = 3) -> pa.Table:
    offsets = struct.pack(f"<{count + 1}i", 0, 2**30, *range(2, count + 1))
    text = pa.Array.from_buffers(pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(b"abc")])
    return pa.table({"prompt": text, "chosen": ["c"] * count, "rejected": ["r"] * count})


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["stream", "file"])
def test_places_outside_of_an_arrow_file_are_not_followed(tmp_path: Path, kind: str, nested: bool) -> None:
    table = damaged_offsets()
    if nested:
        lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), table["prompt"].chunk(0))
        table = table.set_column(0, "prompt", lists)
    writer = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    with writer(tmp_path / "p.arrow", table.schema) as out:
        out.write_table(table)
    (listed,) = read_rows(tmp_path / "p.arrow")
    assert isinstance(listed, DroppedRow) and listed.id == "p.arrow#1"
    assert listed.detail is not None and listed.detail.startswith("damaged Arrow file, nothing is read from here on")


def test_places_outside_of_a_saved_dataset_are_not_followed(tmp_path: Path) -> None:
    Dataset.from_list([PAIR] * 3).save_to_disk(tmp_path / "d")
    (path,) = (tmp_path / "d").glob("*.arrow")
    with pa.ipc.new_stream(path, damaged_offsets().schema) as out:
        out.write_table(damaged_offsets())
    with pytest.raises(DataError, match=r"d: none of its first 1 rows can be read.*nothing is read from here on"):
        load(str(tmp_path / "d"))


@pytest.mark.parametrize("cut", [4, 8])
def test_a_stream_without_its_end_is_told(tmp_path: Path, cut: int) -> None:
    table = pa.table({name: [f"{name} {n}" for n in range(3)] for name in PAIR})
    with pa.ipc.new_stream(tmp_path / "p.arrow", table.schema) as out:
        out.write_table(table)
    (tmp_path / "p.arrow").write_bytes((tmp_path / "p.arrow").read_bytes()[:-cut])
    *rows, listed = read_rows(tmp_path / "p.arrow")
    assert len(rows) == 3 and isinstance(listed, DroppedRow) and listed.id == "p.arrow#4"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**61], pa.int64()).cast(pa.timestamp("us")),
        pa.array([10**8], pa.int32()).cast(pa.date32()),
        pa.array([1]).cast(pa.timestamp("s", tz="Nowhere/None")),
    ],
)
def test_values_that_python_has_not_cost_their_row(tmp_path: Path, column: pa.Array) -> None:
    pa.parquet.write_table(pa.table({**{name: [name] for name in PAIR}, "when": column}), tmp_path / "p.parquet")
    (listed,) = read_rows(tmp_path / "p.parquet")
    assert isinstance(listed, DroppedRow) and listed.detail is not None
    assert listed.detail.startswith("a value cannot be read: ")


# Texts


def test_half_a_character_is_listed_wherever_it_stands() -> None:
    half = "\ud83d"
    spoken = {"prompt": [{"role": half, "content": "p"}], "chosen": "c", "rejected": "r"}
    loaded = load([{**spoken, "prompt": [{"role": "user", "content": "p"}]}, spoken, {**PAIR, "prompt": half}])
    assert [drop.id for drop in loaded.dropped] == ["row 2", "row 3"]
    call = {"function": {"name": "f", "arguments": json.dumps({"a": half})}}
    chat = [{"role": "user", "content": "p"}]
    called = load([{"prompt": chat, "chosen": [{"role": "assistant", "tool_calls": [call]}], "rejected": "r"}]).examples
    (listed,) = outcomes(pair_tokenizer(byte_level(chat_template=CALLS)), *called).dropped
    assert listed.detail is not None and listed.detail.startswith(
        "what the chat template writes holds half a character"
    )


@pytest.mark.parametrize("sign", [" ", "\n", "\t", ",", '"', "'", "[", "{", "("])
@pytest.mark.parametrize("looks", [is_broken_messages, is_list_notation, decoded])
def test_long_runs_of_a_sign_take_no_longer_than_their_length(looks: Any, sign: str) -> None:
    # Twice as long took four times as long: here minutes.
    for before in ("", "[", '["a"', "{'role'"):
        looks(before + sign * 200_000 + "x")


def test_long_runs_of_lines_in_a_list_take_no_longer_than_their_length(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('[{"prompt" oops' + "\n" * 300_000 + "]")
    (listed,) = read_rows(tmp_path / "p.json")
    assert isinstance(listed, DroppedRow)


def test_what_python_thinks_of_a_text_is_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoded(r"['\d']") == ["\\d"]


# Rows in memory


@pytest.mark.parametrize("value", [pd.NA, pd.NaT, {1, 2}, b"b", object(), np.array(["a"]), {("k",): 1}, float("nan")])
@pytest.mark.parametrize("place", ["chosen", "tools", "label", "scores", "made"])
def test_values_that_no_file_has_are_used_or_listed(value: object, place: str) -> None:
    chat = {"prompt": [{"role": "user", "content": "p"}], "chosen": "c", "rejected": "r"}
    loaded = load([chat, {**chat, place: value}])
    found = Counter(chain((example.id for example in loaded.examples), (drop.id for drop in loaded.dropped)))
    assert found == {"row 1": 1, "row 2": 1}


def test_a_column_whose_name_is_no_text_costs_the_row() -> None:
    (listed,) = load([PAIR, {1: "a"}]).dropped
    assert listed.detail == "the name of a column is a number (1), not text"


# Bounds


def test_a_line_that_inflates_enormously_is_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "LONGEST", 1 << 16)
    good = json.dumps(PAIR).encode() + b"\n"
    for name, start in {"p.jsonl.gz": b"", "p.csv.gz": b'"'}.items():
        before = good if "json" in name else b"prompt,chosen,rejected\na,b,c\n"
        after = good if "json" in name else b"a,b,c\n"
        bomb = gzip.compress(before + start + b" " * (1 << 25) + b"\n" + after)
        assert len(bomb) < 1 << 16
        (tmp_path / name).write_bytes(bomb)
        tracemalloc.start()
        rows = list(read_rows(tmp_path / name))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 23
        assert isinstance(rows[0], Row) and isinstance(rows[1], DroppedRow)
        if "json" in name:
            assert rows[1].detail == "longer than 65,536 characters" and isinstance(rows[2], Row)


def test_a_file_of_unreadable_rows_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_rows, "MOST_UNREADABLE", 1000)
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress((json.dumps(PAIR) + "\n").encode() * 200 + b"x\n" * 100_000))
    with pytest.raises(DataError, match=r"more than 1,000 of its rows cannot be read; at p\.jsonl\.gz:1201"):
        load(str(tmp_path / "p.jsonl.gz"))


@pytest.mark.parametrize("ranked", [False, True])
def test_a_row_gives_no_flood_of_pairs(ranked: bool) -> None:
    answers = [f"a{n}" for n in range(3000)]
    flood = {"prompt": "p", "responses": answers, "scores": list(range(3000))} if ranked else {
        "prompt": "p", "chosen": answers, "rejected": [f"b{n}" for n in range(3000)]
    }  # fmt: skip
    few = {"prompt": "p", "responses": ["a", "b"], "scores": [1, 2]} if ranked else PAIR
    (listed,) = load([few, flood]).dropped
    assert listed.reason == "too many pairs" and f"{MOST_PAIRS:,}" in str(listed.detail)
    if ranked:
        assert len(load([few, flood], ranked_pairs="best-worst").examples) == 2


@pytest.mark.parametrize("name", ["p.zip", "p.jsonl.zip", "p.tar", "p.tar.gz", "p.pkl", "p.npy", "p.pt"])
def test_archives_and_pickles_are_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="files of this kind are not read"):
        load(str(tmp_path / name))
