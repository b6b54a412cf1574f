from __future__ import annotations

import gzip
import json
import random
import string
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltlm.data.files import encodings, json_items
from tiltlm.data.files.file_rows import read_rows
from tiltlm.data.files.raw_rows import Row
from tiltlm.errors import DataError
from tiltlm.runs.data_account import DroppedRow

ROWS = [
    {"prompt": "P é 😀", "chosen": "a\nb", "rejected": "c"},
    {"prompt": "Q", "chosen": 'say "d", e', "rejected": "f"},
]


def to_jsonl(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def to_json(rows: list[dict[str, str]]) -> bytes:
    return json.dumps(rows, indent=2, ensure_ascii=False).encode()


def to_csv(rows: list[dict[str, str]]) -> bytes:
    cells = [list(rows[0])] + [list(row.values()) for row in rows]
    return "\r\n".join(",".join('"' + c.replace('"', '""') + '"' for c in row) for row in cells).encode()


WRITERS = {".jsonl": to_jsonl, ".ndjson": to_jsonl, ".json": to_json, ".csv": to_csv}
PLACES = {".jsonl": [":1", ":2"], ".ndjson": [":1", ":2"], ".json": ["#1", "#2"], ".csv": [":2", ":4"]}


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def dropped(path: Path) -> list[DroppedRow]:
    return [row for row in read_rows(path) if isinstance(row, DroppedRow)]


def kept(path: Path) -> list[str]:
    return [row.id for row in read_rows(path) if isinstance(row, Row)]


@pytest.mark.parametrize("byte_order_mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("suffix", WRITERS)
def test_every_kind_of_text_file(tmp_path: Path, suffix: str, gz: str, byte_order_mark: bytes) -> None:
    path = written(tmp_path, f"pairs{suffix}{gz}", byte_order_mark + WRITERS[suffix](ROWS))
    expected = [Row(path.name + place, row) for place, row in zip(PLACES[suffix], ROWS, strict=True)]
    assert list(read_rows(path)) == expected


def test_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS * 1500), tmp_path / "pairs.parquet")
    rows = list(read_rows(tmp_path / "pairs.parquet"))
    assert rows[:2] == [Row("pairs.parquet#1", ROWS[0]), Row("pairs.parquet#2", ROWS[1])]
    assert rows[-1] == Row("pairs.parquet#3000", ROWS[1])


def test_bad_bytes_in_one_parquet_row_drop_that_row(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"\xff", b"good"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": texts}), tmp_path / "pairs.parquet")
    assert kept(tmp_path / "pairs.parquet") == ["pairs.parquet#1", "pairs.parquet#3"]
    assert [drop.id for drop in dropped(tmp_path / "pairs.parquet")] == ["pairs.parquet#2"]


def test_damaged_parquet_is_told(tmp_path: Path) -> None:
    (drop,) = read_rows(written(tmp_path, "pairs.parquet", b"PAR1 not really"))
    assert isinstance(drop, DroppedRow) and "damaged parquet" in str(drop.detail)


def test_unreadable_jsonl_lines_are_told_and_blank_ones_are_no_rows(tmp_path: Path) -> None:
    lines = [b'{"a": 1}', b"", b"{broken", b"[1]", b'{"a": "\xff"}', b"   ", b"[" * 100_000, b"9" * 5000, b'{"a": 2}']
    path = written(tmp_path, "pairs.jsonl", b"\n".join(lines))
    assert kept(path) == ["pairs.jsonl:1", "pairs.jsonl:9"]
    assert [drop.id for drop in dropped(path)] == [f"pairs.jsonl:{line}" for line in (3, 4, 5, 7, 8)]
    assert {drop.reason for drop in dropped(path)} == {"unreadable row"}
    details = [str(drop.detail) for drop in dropped(path)]
    assert "not valid JSON" in details[0] and "a list, not an object" in details[1] and "not UTF-8" in details[2]


def test_csv_records_are_named_by_the_line_they_start_on(tmp_path: Path) -> None:
    content = b'prompt,chosen\n"two\nlines",x\n\nonly one\na,b,c\n"quote"d,x\n\xff,x\nlast,y\n'
    path = written(tmp_path, "pairs.csv", content)
    assert kept(path) == ["pairs.csv:2", "pairs.csv:9"]
    assert [(drop.id, drop.detail) for drop in dropped(path)] == [
        ("pairs.csv:5", "1 fields, where the header has 2"),
        ("pairs.csv:6", "3 fields, where the header has 2"),
        ("pairs.csv:7", "not valid CSV up to line 7: ',' expected after '\"'"),
        ("pairs.csv:8", "not UTF-8 text"),
    ]


def test_an_unclosed_csv_quote_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, "pairs.csv", b'a,b\n1,2\n3,"open\n5,6\n')
    assert kept(path) == ["pairs.csv:2"]
    (drop,) = dropped(path)
    assert drop.id == "pairs.csv:3" and "unexpected end of data" in str(drop.detail)


def test_long_csv_fields(tmp_path: Path) -> None:
    path = written(tmp_path, "pairs.csv", b"a,b\n" + b"x" * 300_000 + b",y\n")
    (row,) = read_rows(path)
    assert isinstance(row, Row) and len(str(row.fields["a"])) == 300_000


def test_a_csv_column_named_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="twice"):
        list(read_rows(written(tmp_path, "pairs.csv", b"a,a\n1,2\n")))


def test_json_lines_named_json_are_read_as_lines(tmp_path: Path) -> None:
    assert kept(written(tmp_path, "pairs.json", to_jsonl(ROWS))) == ["pairs.json:1", "pairs.json:2"]


@pytest.mark.parametrize(
    "content", [b'{"chosen": ["a"], "rejected": ["b"]}', b'{\n"data": []\n}', b'"text"', b"", b"nope"]
)
def test_json_that_is_no_list_says_what_is_expected(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="expected a list of objects"):
        list(read_rows(written(tmp_path, "pairs.json", content)))


def test_an_empty_json_list_has_no_rows(tmp_path: Path) -> None:
    assert list(read_rows(written(tmp_path, "pairs.json", b" [ \n ] \n"))) == []


@pytest.mark.parametrize(
    ("content", "rows", "drops"),
    [
        (b'[{"a": 1}, 2, {"a": 3}]', ["#1", "#3"], ["#2"]),
        (b'[{"a": 1}, {"a" 2}, {"a": 3}]', ["#1", "#3"], ["#2"]),
        (b'[{"a": 1}, {"a": 2}', ["#1"], ["#2"]),
        (b'[{"a": 1}, ', ["#1"], ["#2"]),
        (b'[{"a": 1},]', ["#1"], ["#2"]),
        (b'[{"a": 1}] [{"a": 2}]', ["#1"], ["#2"]),
        (b'[{"a": "\xff"}, {"a": 1}]', ["#2"], ["#1"]),
        (b"[" * 50_000, [], ["#1"]),
    ],
)
def test_damaged_json_lists_keep_what_is_before(
    tmp_path: Path, content: bytes, rows: list[str], drops: list[str]
) -> None:
    path = written(tmp_path, "p.json", content)
    assert kept(path) == [f"p.json{place}" for place in rows]
    assert [drop.id for drop in dropped(path)] == [f"p.json{place}" for place in drops]


@settings(max_examples=30, deadline=None)
@given(items=st.lists(st.dictionaries(st.text(max_size=3), st.text() | st.integers() | st.none(), max_size=3)))
def test_json_lists_stream_in_pieces_of_any_size(tmp_path_factory: pytest.TempPathFactory, items: list[object]) -> None:
    path = tmp_path_factory.mktemp("stream") / "p.json"
    path.write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "PIECE", 3)
        rows = list(read_rows(path))
    assert [row.fields for row in rows if isinstance(row, Row)] == items


def test_an_endless_item_ends_the_reading_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_items, "LONGEST", 1000)
    path = written(tmp_path, "p.json", b'[{"a": 1}, {"a": "' + b"x" * 500_000)
    assert kept(path) == ["p.json#1"] and len(dropped(path)) == 1


@pytest.mark.parametrize("suffix", WRITERS)
def test_truncated_gzip_keeps_the_rows_before_the_damage(tmp_path: Path, suffix: str) -> None:
    noise = random.Random(0)
    texts = ["".join(noise.choices(string.printable, k=400)) for _ in range(500)]
    whole = gzip.compress(WRITERS[suffix]([{"prompt": text, "chosen": "c"} for text in texts]))
    path = tmp_path / f"p{suffix}.gz"
    path.write_bytes(whole[: len(whole) // 2])
    assert 200 < len(kept(path)) < 300
    (drop,) = dropped(path)
    assert drop.id == path.name and drop.reason == "unreadable row"
    assert f"nothing is read after {kept(path)[-1]}" in str(drop.detail)


def test_what_is_no_gzip_is_told(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl.gz").write_bytes(to_jsonl(ROWS))
    (drop,) = read_rows(tmp_path / "p.jsonl.gz")
    assert isinstance(drop, DroppedRow) and "damaged gzip" in str(drop.detail)


@pytest.mark.parametrize("name", ["pairs.doc", "pairs", "pairs.parquet.gz", "pairs.doc.gz"])
def test_unknown_kinds_are_errors(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="not read"):
        list(read_rows(written(tmp_path, name, b"{}")))


@pytest.mark.parametrize("name", ["pairs.txt", "pairs.gz"])
def test_a_name_that_does_not_tell_is_read_where_it_holds_json(tmp_path: Path, name: str) -> None:
    assert kept(written(tmp_path, name, to_jsonl(ROWS))) == [f"{name}:1", f"{name}:2"]
    with pytest.raises(DataError, match="read where they hold JSON, and this one does not"):
        list(read_rows(written(tmp_path, name, b"Once upon a time\n")))


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".json", ".jsonl", ".csv", ".parquet", ".csv.gz"]))
def test_any_bytes_give_rows_drops_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("any") / f"p{suffix}"
    path.write_bytes(content)
    try:
        rows = list(read_rows(path))
    except DataError:
        return
    assert len({row.id for row in rows}) == len(rows)
