"""Files as people have them: encodings, separators, JSON laid out in any way, compressions, Arrow."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather, ipc
from pyarrow import parquet as pq

from tiltlm.data.files import encodings
from tiltlm.data.files.file_rows import data_suffix, read_rows
from tiltlm.data.files.raw_rows import Row
from tiltlm.errors import DataError
from tiltlm.runs.data_account import DroppedRow

ROWS = [{"prompt": f"Question {number}?", "chosen": "yes, of course", "rejected": 'no; "never"'} for number in range(3)]


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def read(path: Path) -> tuple[list[Row], list[DroppedRow], list[str]]:
    notes: list[str] = []
    rows = list(read_rows(path, tell=notes.append))
    kept = [row for row in rows if isinstance(row, Row)]
    return kept, [row for row in rows if isinstance(row, DroppedRow)], notes


def fields(path: Path) -> list[object]:
    return [row.fields for row in read(path)[0]]


def table(rows: list[dict[str, str]], separator: str = ",", end: str = "\r\n") -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=separator, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


# Separators


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_separators_are_detected(tmp_path: Path, suffix: str, separator: str, end: str) -> None:
    path = put(tmp_path, f"p{suffix}", table(ROWS, separator, end).encode())
    rows, dropped, notes = read(path)
    assert [row.fields for row in rows] == ROWS and not dropped
    assert [row.id for row in rows] == [f"p{suffix}:{line}" for line in (2, 3, 4)]
    words = {";": ["semicolons"], "|": ["bars"]}.get(separator, [])
    assert len(notes) == len(words) and all(word in note for word, note in zip(words, notes, strict=True))


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=40, deadline=None)
@given(cells=st.lists(st.tuples(texts, texts), min_size=1, max_size=4), separator=st.sampled_from(",;\t|"))
def test_any_texts_come_back_from_a_table(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]], separator: str
) -> None:
    rows = [{"prompt": prompt, "chosen": chosen, "rejected": "x"} for prompt, chosen in cells]
    path = put(tmp_path_factory.getbasetemp(), "any.csv", table(rows, separator).encode())
    assert fields(path) == rows


def test_a_declared_separator_is_no_row(tmp_path: Path) -> None:
    path = put(tmp_path, "p.csv", b"sep=;\r\n" + table(ROWS, ";").encode())
    rows, _, _ = read(path)
    assert [row.fields for row in rows] == ROWS and rows[0].id == "p.csv:3"


def test_a_column_without_a_name_is_kept(tmp_path: Path) -> None:
    assert fields(put(tmp_path, "p.csv", b",prompt\n0,x\n")) == [{"": "0", "prompt": "x"}]


# Encodings

SPOKEN = {
    "cp1252": "Größe, Café, déjà vu: “schön” – voilà",
    "cp1250": "Zażółć gęślą jaźń, proszę bardzo, dziękuję",
    "cp1251": "Привет, как дела сегодня? Хорошо, спасибо",
    "koi8_r": "Привет, как дела сегодня? Хорошо, спасибо",
    "gb18030": "今天的天气怎么样？很好，阳光明媚，适合散步。",
    "big5": "今天的天氣怎麼樣？很好，陽光明媚，適合散步。",
    "cp932": "こんにちは、世界。今日は天気がいいですね。",
    "cp949": "안녕하세요 세계, 오늘은 날씨가 좋습니다.",
}


def spoken(text: str) -> list[dict[str, str]]:
    return [{"prompt": "Say:", "chosen": text, "rejected": "no"}] * 3


def to_json(rows: list[dict[str, str]]) -> str:
    return json.dumps(rows, ensure_ascii=False, indent=1)


def to_jsonl(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


WRITERS: dict[str, Callable[[list[dict[str, str]]], str]] = {".csv": table, ".json": to_json, ".jsonl": to_jsonl}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("encoding", SPOKEN)
def test_encodings_are_detected_and_named(tmp_path: Path, encoding: str, suffix: str) -> None:
    rows = spoken(SPOKEN[encoding])
    path = put(tmp_path, f"p{suffix}", WRITERS[suffix](rows).encode(encoding))
    _, dropped, notes = read(path)
    assert fields(path) == rows and not dropped
    assert f"is not UTF-8: it is read as {encoding}" in notes[0]


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("text", SPOKEN.values())
@pytest.mark.parametrize(
    ("encoding", "mark", "note"),
    [
        ("utf-8", b"", None),
        ("utf-8", codecs.BOM_UTF8, None),
        ("utf-16-le", codecs.BOM_UTF16_LE, "UTF-16"),
        ("utf-16-be", codecs.BOM_UTF16_BE, "UTF-16"),
        ("utf-32-le", codecs.BOM_UTF32_LE, "UTF-32"),
        ("utf-16-le", b"", "UTF-16-LE"),
        ("utf-16-be", b"", "UTF-16-BE"),
    ],
)
def test_unicode_in_all_its_forms(
    tmp_path: Path, encoding: str, mark: bytes, note: str | None, text: str, suffix: str
) -> None:
    path = put(tmp_path, f"p{suffix}", mark + WRITERS[suffix](spoken(text)).encode(encoding))
    _, dropped, notes = read(path)
    assert fields(path) == spoken(text) and not dropped
    assert notes == ([f"p{suffix} is read as {note}."] if note else [])


def test_broken_rows_of_utf_8_do_not_change_its_encoding(tmp_path: Path) -> None:
    good = to_jsonl(spoken("Größe")).encode()
    path = put(tmp_path, "p.jsonl", good + b'{"prompt": "\xff\xfe\xff\xfe"}\n' + good)
    rows, dropped, notes = read(path)
    assert len(rows) == 6 and [drop.id for drop in dropped] == ["p.jsonl:4"] and notes == []


def test_characters_on_the_border_of_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "PIECE", 7)
    for text in SPOKEN.values():
        for encoding in ("utf-8", "utf-16"):
            assert fields(put(tmp_path, "p.json", to_json(spoken(text)).encode(encoding))) == spoken(text)


# JSON, however it is laid out

LAYOUTS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "lines": to_jsonl,
    "list": to_json,
    "list on one line": lambda rows: json.dumps(rows),
    "list of lines": lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
    "objects": lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows),
    "objects without space": lambda rows: "".join(json.dumps(row, indent=2) for row in rows),
    "lines that end with commas": lambda rows: ",\n".join(map(json.dumps, rows)) + ",\n",
    "blank lines": lambda rows: "\n\n".join(map(json.dumps, rows)) + "\n\n",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson", ".txt"])
def test_json_is_read_however_it_is_laid_out(tmp_path: Path, suffix: str, layout: str) -> None:
    path = put(tmp_path, f"p{suffix}", LAYOUTS[layout](ROWS).encode())
    rows, dropped, _ = read(path)
    assert [row.fields for row in rows] == ROWS and not dropped
    assert len({row.id for row in rows}) == 3


def test_objects_are_named_by_the_line_they_start_on(tmp_path: Path) -> None:
    rows, _, _ = read(put(tmp_path, "p.jsonl", b'\n{\n"a": 1}\n{"a":\n2\n}{"a": 3}'))
    assert [row.id for row in rows] == ["p.jsonl:2", "p.jsonl:4", "p.jsonl:6"]


BROKEN = [
    '{"prompt" "b", "chosen": "y"}',
    '{"prompt": "b", "chosen": y}',
    '{"prompt": "b, "chosen": "y"}',
    '{"prompt": "b", "chosen": "y"',
    '{"prompt": "b", "chosen": "y",}',
    '{"prompt": "b", "chosen": ["y", ]}',
    '{"prompt": "b", "chosen": [{"role": "user", "content": "}, {"}}',
    '{"prompt": "b\nc", "chosen": "y"}',
    "{'prompt': 'b', 'chosen': 'y'}",
    '{prompt: "b"}',
    "nonsense",
    '{"prompt": "b"} {',
]


@pytest.mark.parametrize("at", [0, 1, 3])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_element_of_a_list_costs_that_element(tmp_path: Path, broken: str, at: int) -> None:
    items = [f'{{"prompt": "{letter}", "chosen": "y"}}' for letter in "acd"]
    items.insert(at, broken)
    rows, dropped, _ = read(put(tmp_path, "p.json", ("[" + ",\n".join(items) + "]").encode()))
    assert [row.fields["prompt"] for row in rows] == ["a", "c", "d"]
    assert [drop.id for drop in dropped] == [f"p.json#{at + 1}"] and "not valid JSON" in str(dropped[0].detail)


@pytest.mark.parametrize("broken", BROKEN[:6])
def test_a_broken_object_among_objects_costs_that_object(tmp_path: Path, broken: str) -> None:
    items = ['{\n"prompt": "a",\n"chosen": "y"\n}', broken, '{\n"prompt": "c",\n"chosen": "y"\n}']
    rows, dropped, _ = read(put(tmp_path, "p.jsonl", "\n".join(items).encode()))
    assert [row.fields["prompt"] for row in rows] == ["a", "c"]
    assert [drop.id for drop in dropped] == ["p.jsonl:5"]


@settings(max_examples=40, deadline=None)
@given(
    items=st.lists(st.sampled_from(['{"a": 1}', '{"a": [1, {"b": "}, {"}]}', "null", '"x"']), max_size=6),
    piece=st.integers(1, 9),
)
def test_a_list_in_pieces_of_any_size_is_the_list(
    tmp_path_factory: pytest.TempPathFactory, items: list[str], piece: int
) -> None:
    path = put(tmp_path_factory.getbasetemp(), "any.json", ("[" + " , ".join(items) + "]").encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "PIECE", piece)
        rows, dropped, _ = read(path)
    assert [row.fields for row in rows] == [json.loads(item) for item in items if item.startswith("{")]
    assert len(rows) + len(dropped) == len(items)


def test_single_objects(tmp_path: Path) -> None:
    assert fields(put(tmp_path, "p.json", json.dumps(ROWS[0], indent=1).encode())) == ROWS[:1]
    with pytest.raises(DataError, match="Keep the list under `data` alone"):
        read(put(tmp_path, "p.json", json.dumps({"version": "1", "data": ROWS}).encode()))
    with pytest.raises(DataError, match="Write its columns as rows"):
        read(put(tmp_path, "p.json", json.dumps({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]}).encode()))


# Compressions and Arrow


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


@pytest.mark.parametrize("suffix", [*WRITERS, ".tsv", ".txt", ""])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressed_files(tmp_path: Path, compression: str, suffix: str) -> None:
    content = (table(ROWS, "\t") if suffix == ".tsv" else WRITERS.get(suffix, to_jsonl)(ROWS)).encode()
    path = put(tmp_path, f"p{suffix}{compression}", COMPRESSIONS[compression](content))
    rows, dropped, notes = read(path)
    assert [row.fields for row in rows] == ROWS and not dropped and not notes
    assert rows[0].id.startswith(path.name)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_damaged_compressed_files_keep_what_is_before(tmp_path: Path, compression: str) -> None:
    whole = COMPRESSIONS[compression](to_jsonl(ROWS * 9000).encode())
    rows, dropped, _ = read(put(tmp_path, f"p.jsonl{compression}", whole[: len(whole) // 2]))
    assert (
        len(dropped) == 1 and "damaged" in str(dropped[0].detail) and "nothing is read after" in str(dropped[0].detail)
    )
    assert len(rows) < 27000
    _, dropped, _ = read(put(tmp_path, f"q.jsonl{compression}", b"no such thing"))
    assert len(dropped) == 1 and "damaged" in str(dropped[0].detail)


def test_quotes_escaped_by_backslashes_are_told(tmp_path: Path) -> None:
    table = 'prompt,chosen,rejected\n"Say \\"hi\\".",hi,ho\nP,a,b\n'
    kept, dropped, _ = read(put(tmp_path, "p.csv", table.encode()))
    assert [row.id for row in kept] == ["p.csv:3"]
    assert [drop.id for drop in dropped] == ["p.csv:2"] and "CSV writes two of them" in str(dropped[0].detail)


@pytest.mark.parametrize(
    ("name", "before", "between", "after"),
    [("p.jsonl", "", "\n", "\n"), ("p.json", "[", ", ", "]"), ("p.json", "", " ", ""), ("p.txt", "[\n", ",\n", "]")],
)
@pytest.mark.parametrize(
    "broken",
    [
        '{"prompt": "P", "chosen": "a", "rejected": "b", "rejected": "c"}',
        '{"prompt": [{"role": "user", "content": "P", "content": "Q"}], "chosen": "a", "rejected": "b"}',
    ],
)
def test_a_key_that_appears_twice_costs_the_row(
    tmp_path: Path, name: str, before: str, between: str, after: str, broken: str
) -> None:
    """Which of its values is meant is not known."""
    rows = [json.dumps(row) for row in ROWS]
    content = before + between.join([rows[0], broken, *rows[1:]]) + after
    kept, dropped, _ = read(put(tmp_path, name, content.encode()))
    assert [row.fields for row in kept] == ROWS
    assert [str(drop.detail).count("appears twice in an object") for drop in dropped] == [1]


@pytest.mark.parametrize("name", ["p.parquet", "p.feather", "p.arrow", "p.csv"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, name: str) -> None:
    """A row could hold one of them alone, and which of two `rejected` is meant is not known."""
    columns = pa.table([["P"], ["a"], ["b"], ["c"]], names=["prompt", "chosen", "rejected", "rejected"])
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(columns, path)
    elif name.endswith("csv"):
        path.write_text("prompt,chosen,rejected,rejected\nP,a,b,c\n")
    else:
        opened = ipc.new_file if name.endswith("feather") else ipc.new_stream
        with opened(path, columns.schema) as writer:
            writer.write_table(columns)
    with pytest.raises(DataError, match=rf"{name}.*a column name appears twice: prompt, chosen, rejected, rejected"):
        list(read_rows(path))


@pytest.mark.parametrize("kind", ["file", "stream", "feather", "compressed"])
@pytest.mark.parametrize("suffix", [".arrow", ".feather"])
def test_arrow_in_all_its_forms(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"p{suffix}"
    rows = pa.Table.from_pylist(ROWS * 900)
    if kind == "feather":
        feather.write_feather(rows, str(path))
    else:
        options = ipc.IpcWriteOptions(compression="zstd") if kind == "compressed" else None
        new = ipc.new_stream if kind == "stream" else ipc.new_file
        with path.open("wb") as sink, new(sink, rows.schema, options=options) as writer:
            writer.write_table(rows)
    kept, dropped, _ = read(path)
    assert [row.fields for row in kept] == ROWS * 900 and not dropped and kept[1].id == f"p{suffix}#2"


@pytest.mark.parametrize("suffix", [".arrow", ".feather"])
def test_damaged_arrow_is_told(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(DataError, match=rf"p{suffix}: this is Feather's first version"):
        read(put(tmp_path, f"p{suffix}", b"FEA1 and so on"))
    for content in (b"", b"ARROW1 not really", b"\xff\xff\xff\xff\x10\0\0\0"):
        _, dropped, _ = read(put(tmp_path, f"p{suffix}", content))
        assert len(dropped) <= 1 and all("damaged" in str(drop.detail) for drop in dropped)


def test_keys_that_a_table_added_as_null_are_no_keys(tmp_path: Path) -> None:
    chats = [[{"role": "user", "content": "Hi"}], [{"role": "assistant", "content": None, "tool_calls": [{"n": "f"}]}]]
    path = tmp_path / "p.arrow"
    rows = pa.table({"chosen": chats, "none": pa.nulls(2)})
    with path.open("wb") as sink, ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    assert fields(path) == [
        {"chosen": [{"role": "user", "content": "Hi"}], "none": None},
        {"chosen": [{"role": "assistant", "tool_calls": [{"n": "f"}]}], "none": None},
    ]


@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet", "p.csv.gz"])
def test_a_pointer_of_git_lfs_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="git lfs pull"):
        read(put(tmp_path, name, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"))


def test_suffixes() -> None:
    known = ["p.JSONL", "p.csv.GZ", "p.tsv.xz", "p.txt", "p.gz", "p.arrow"]
    assert [data_suffix(Path(name)) for name in known] == [".jsonl", ".csv", ".tsv", ".txt", ".txt", ".arrow"]
    assert all(data_suffix(Path(name)) is None for name in ("p", "p.py", "p.arrow.gz", "p.tar.gz"))
