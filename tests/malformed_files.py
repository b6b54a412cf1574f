"""Files of every kind that is read, damaged in every way that is met, and a few more. For tests and the fuzzer."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
from malformed_rows import LABELLED, TEMPLATES, as_json, damaged, row


@dataclass(frozen=True)
class Case:
    """One input.

    kind: of the file. damage: what is wrong. files: contents by path; `source` is the file or folder that is read.
    given: rows in memory, in place of files.
    rows: how many there are, where that is known. written: of each row the bytes that stand in the file for it, by the
        number of its mark, where it stands there as it is.
    unit: what the objective learns from.
    """

    kind: str
    damage: str
    files: Mapping[str, bytes]
    source: str
    unit: str
    rows: int | None = None
    written: Mapping[int, bytes] | None = None
    given: list[Any] | None = None


Table = list[dict[str, Any]]


def _line(one: Any, ascii_only: bool = True) -> bytes:
    return as_json(json.dumps(one, ensure_ascii=ascii_only)).encode("utf-8", "surrogatepass")


def _lines(rows: Table, rng: random.Random) -> bytes:
    ascii_only = rng.random() < 0.5
    return b"".join(_line(one, ascii_only) + b"\n" for one in rows)


def _list(rows: Table, rng: random.Random) -> bytes:
    indent = rng.choice([None, 1, 2])
    return as_json(json.dumps(rows, indent=indent)).encode()


def _objects(rows: Table, rng: random.Random) -> bytes:
    indent, between = rng.choice([None, 1]), rng.choice(["\n", " ", "", ",\n"])
    return as_json(between.join(json.dumps(one, indent=indent) for one in rows)).encode()


def _cells(rows: Table, rng: random.Random) -> bytes:
    columns = list(dict.fromkeys(str(name) for one in rows if isinstance(one, dict) for name in one)) or ["prompt"]
    separator, quoted = rng.choice(",;\t|"), rng.random() < 0.7
    end = rng.choice(["\n", "\r\n", "\r"])

    def cell(held: Any) -> str:
        text = "" if held is None else held if isinstance(held, str) else json.dumps(held)
        return '"' + text.replace('"', '""') + '"' if quoted else text

    table: list[list[Any]] = [
        columns,
        *([one.get(name) if isinstance(one, dict) else one for name in columns] for one in rows),
    ]
    text = "".join(separator.join(cell(held) for held in line) + end for line in table)
    return as_json(text).encode("utf-8", "surrogatepass")


def _odd_column(count: int, rng: random.Random) -> pa.Array:
    """A column of a type that JSON does not know, of values that Python may not know either."""
    kind = rng.choice(
        [
            pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("s", tz="Nowhere/None"), pa.date32(), pa.date64(),
            pa.time64("us"), pa.duration("ns"), pa.decimal128(30, 2), pa.binary(), pa.large_string(), pa.null(),
            pa.uint64(), pa.float16(), pa.map_(pa.string(), pa.int64()), pa.dictionary(pa.int32(), pa.string()),
            pa.string_view(), pa.binary(4), pa.list_(pa.int64(), 2),
        ]
    )  # fmt: skip
    number = rng.choice([0, 1, -1, 2**62, -(2**62), 10**15])
    try:
        if pa.types.is_temporal(kind):
            return pa.array([number] * count, pa.int64() if kind.bit_width == 64 else pa.int32()).cast(kind)
        examples: list[Any] = [1, "a", b"abcd", [("k", 1)], [1, 2], None]
        for held in examples:
            try:
                return pa.array([held] * count, kind)
            except (pa.ArrowException, TypeError, ValueError):
                continue
    except (pa.ArrowException, OverflowError):
        pass
    return pa.nulls(count)


def _table(rows: Table, rng: random.Random) -> pa.Table:
    plain = [one if isinstance(one, dict) else {"prompt": one} for one in rows]
    plain = [{str(name).encode("utf-8", "replace").decode(): held for name, held in one.items()} for one in plain]
    names = list(dict.fromkeys(name for one in plain for name in one))
    columns = []
    for name in names:
        values = [one.get(name) for one in plain]
        try:
            columns.append(pa.array(values))
        except (pa.ArrowException, TypeError, OverflowError, UnicodeEncodeError):
            texts = [held if isinstance(held, str) else json.dumps(held) for held in values]
            binary = pa.array([text.encode("utf-8", "surrogatepass") for text in texts], pa.binary())
            columns.append(pa.Array.from_buffers(pa.string(), len(binary), binary.buffers()))
    table = pa.Table.from_arrays(columns, names) if names else pa.table({"prompt": pa.nulls(len(rows))})
    if rng.random() < 0.3:
        table = table.append_column(rng.choice(["made", "prompt2", "score"]), _odd_column(len(rows), rng))
    return table


def _parquet(rows: Table, rng: random.Random) -> bytes:
    stream = io.BytesIO()
    table = _table(rows, rng)
    try:
        pa.parquet.write_table(table, stream, row_group_size=rng.choice([1, 3, 100]))
    except (pa.ArrowException, OSError):  # a type that parquet has not
        stream = io.BytesIO()
        pa.parquet.write_table(pa.table({"prompt": ["a"] * len(rows)}), stream)
    return stream.getvalue()


def _ipc(of: Callable[..., Any]) -> Callable[[Table, random.Random], bytes]:
    def written(rows: Table, rng: random.Random) -> bytes:
        stream, table = io.BytesIO(), _table(rows, rng)
        with of(stream, table.schema) as writer:
            for batch in table.to_batches(max_chunksize=rng.choice([1, 2, 100])):
                writer.write_batch(batch)
        return stream.getvalue()

    return written


def _feather(rows: Table, rng: random.Random) -> bytes:
    stream = io.BytesIO()
    pa.feather.write_feather(_table(rows, rng), stream, compression=rng.choice(["lz4", "zstd", "uncompressed"]))
    return stream.getvalue()


# Suffixes, and how rows become the bytes of a file.
TEXTS: dict[str, tuple[tuple[str, ...], Callable[[Table, random.Random], bytes]]] = {
    "JSON lines": ((".jsonl", ".ndjson", ".txt", ".json"), _lines),
    "JSON list": ((".json", ".jsonl", ".txt"), _list),
    "JSON objects": ((".json", ".jsonl", ".txt"), _objects),
    "table as text": ((".csv", ".tsv"), _cells),
}
TABLES: dict[str, tuple[tuple[str, ...], Callable[[Table, random.Random], bytes]]] = {
    "parquet": ((".parquet",), _parquet),
    "Arrow stream": ((".arrow",), _ipc(pa.ipc.new_stream)),
    "Arrow file": ((".arrow",), _ipc(pa.ipc.new_file)),
    "Feather": ((".feather",), _feather),
}


def _zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../pairs.jsonl", content)
    return stream.getvalue()


def _zstd(content: bytes) -> bytes:
    stream = io.BytesIO()
    with pa.CompressedOutputStream(stream, "zstd") as out:
        out.write(content)
    return stream.getvalue() if not stream.closed else _zstd_of_buffer(content)


def _zstd_of_buffer(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(content)
    return bytes(sink.getvalue())


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": _zstd_of_buffer,
    ".zip": _zipped,
}


def _somewhere(content: bytes, rng: random.Random) -> int:
    return rng.randint(0, len(content))


def _flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        if changed:
            changed[rng.randrange(len(changed))] ^= rng.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])
    return bytes(changed)


def _signs(content: bytes, rng: random.Random) -> bytes:
    """A sign of the notation put in, or taken out."""
    at, sign = (
        _somewhere(content, rng),
        rng.choice([b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r", b"'"]),
    )
    if rng.random() < 0.5:
        return content[:at] + sign + content[at:]
    places = [found.start() for found in re.finditer(rb'["\\{}\[\],:\r\n]', content)] or [0]
    out = rng.choice(places)
    return content[:out] + content[out + 1 :]


def _inserted(content: bytes, rng: random.Random) -> bytes:
    at = _somewhere(content, rng)
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: rng.randbytes(rng.randint(1, 40)),
        lambda: b"\x00" * rng.randint(1, 300),
        lambda: b"\n" * int(10 ** rng.uniform(0, 5)),
        lambda: b" " * int(10 ** rng.uniform(0, 5)),
        lambda: b"[" * int(10 ** rng.uniform(0, 5)),
        lambda: b'{"a":' * int(10 ** rng.uniform(0, 4)),
        lambda: b"a" * int(10 ** rng.uniform(0, 6)),
        lambda: b'"' * rng.randint(1, 9),
        lambda: b"\xff\xfe\xef\xbb\xbf",
        lambda: b"\xed\xa0\x80",
        lambda: "\u2028\x85\x1c".encode(),
    )
    return content[:at] + rng.choice(kinds)() + content[at:]


def _without_piece(content: bytes, rng: random.Random) -> bytes:
    at = _somewhere(content, rng)
    return content[:at] + content[at + rng.randint(1, max(1, len(content) // 3)) :]


def _with_piece_again(content: bytes, rng: random.Random) -> bytes:
    start = _somewhere(content, rng)
    return content[:start] + content[start : start + rng.randint(1, 200)] + content[start:]


def _another_encoding(content: bytes, rng: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    encoding = rng.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "latin-1", "cp1251", "utf-7"])
    encoded = text.encode(encoding, "replace")
    return encoded if rng.random() < 0.7 else encoded[: rng.randint(0, len(encoded))]


def _marked(content: bytes, rng: random.Random) -> bytes:
    mark = rng.choice(
        [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\x00\x00", b"\xef\xbb\xbf" * 2, b"\xef\xbb"]
    )
    return mark + content


def _line_ends(content: bytes, rng: random.Random) -> bytes:
    return re.sub(rb"\r?\n", lambda _: rng.choice([b"\n", b"\r\n", b"\r", b"\n\n", b"\r\r\n", b"\n \n"]), content)


def _repeated_key(content: bytes, rng: random.Random) -> bytes:
    keys = re.findall(rb'"(\w+)"\s*:', content) or [b"x"]
    one, other = rng.choice(keys), rng.choice(keys)
    return content.replace(b'"' + one + b'"', b'"' + other + b'"', rng.choice([1, 2, 100]))


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut off": lambda content, rng: content[: _somewhere(content, rng)],
    "bytes flipped": _flipped,
    "signs": _signs,
    "inserted": _inserted,
    "a piece missing": _without_piece,
    "a piece twice": _with_piece_again,
    "encoding": _another_encoding,
    "byte order mark": _marked,
    "line ends": _line_ends,
    "key twice": _repeated_key,
    "empty": lambda content, rng: rng.choice(
        [b"", b" ", b"\n\n", b"\x00", b"[]", b"{}", b"null", b"[", b'"', b"\xef\xbb\xbf"]
    ),
    "random bytes": lambda content, rng: rng.randbytes(rng.randint(1, 400)),
    "more behind": lambda content, rng: (
        content + rng.choice([b"]", b"}", b"x", b"\x00" * 9, content, b"\n[1]", b"PK\x03\x04"])
    ),
}


def _rows(rng: random.Random, in_memory: bool = False) -> tuple[list[Any], str, str]:
    """Some rows, what is wrong with them, and what an objective learns from them."""
    kind = rng.choice(list(TEMPLATES))
    unit = "completion" if kind in LABELLED or rng.random() < 0.1 else "pair"
    count = rng.choice([1, 2, 3, 5, 8, 12, 12, 20])
    kinds = [rng.choice(list(TEMPLATES)) if rng.random() < 0.05 else kind for _ in range(count)]
    rows: list[Any] = [row(one, number) for number, one in enumerate(kinds)]
    if rng.random() < 0.35:
        return rows, "none", unit
    broken = rng.sample(range(count), rng.randint(1, count) if rng.random() < 0.3 else 1)
    rows = [damaged(one, rng, in_memory) if number in broken else one for number, one in enumerate(rows)]
    return rows, "rows", unit


def make_case(rng: random.Random) -> Case:
    """An input; the same for the same state of `rng`."""
    how = rng.choices(["text", "table", "compressed", "folder", "memory", "saved"], [40, 22, 14, 12, 9, 3])[0]
    return _MAKERS[how](rng)


def _file(
    rng: random.Random, kinds: Mapping[str, Any]
) -> tuple[str, str, str, bytes, str, int | None, dict[int, bytes]]:
    kind = rng.choice(list(kinds))
    suffixes, write = kinds[kind]
    rows, wrong, unit = _rows(rng)
    content = write(rows, rng)
    counted = len(rows) if kind != "table as text" and all(isinstance(one, dict) for one in rows) else None
    pieces = {number: _line(one) for number, one in enumerate(rows)} if kind == "JSON lines" else {}
    if wrong == "none" or rng.random() < 0.3:
        damage = rng.choice(list(DAMAGES))
        content, counted = DAMAGES[damage](content, rng), None
        wrong = damage if wrong == "none" else f"{wrong}, {damage}"
    suffix = rng.choice(suffixes)
    if rng.random() < 0.03:
        suffix, counted = rng.choice([".json", ".jsonl", ".csv", ".parquet", ".arrow", ".feather", ".zip", ".md"]), None
        wrong += ", other suffix"
    name = rng.choice(_FILE_NAMES) if rng.random() < 0.1 else "pairs"
    return kind, wrong, f"{name}{suffix}", content, unit, counted, pieces


_FILE_NAMES = ("a b", "пары", "a\nb", "\u202epairs", "p\udcffq", "a#1>2", "a:3", "<b>", "-x", "train")


def _text_case(rng: random.Random) -> Case:
    kind, wrong, name, content, unit, rows, written = _file(rng, TEXTS)
    return Case(kind, wrong, {name: content}, name, unit, rows, written)


def _table_case(rng: random.Random) -> Case:
    kind, wrong, name, content, unit, rows, _ = _file(rng, TABLES)
    return Case(kind, wrong, {name: content}, name, unit, rows)


def _compressed_case(rng: random.Random) -> Case:
    kind, wrong, name, content, unit, rows, written = _file(rng, TEXTS if rng.random() < 0.9 else TABLES)
    suffix = rng.choice(list(COMPRESSIONS))
    content = COMPRESSIONS[suffix](content)
    if rng.random() < 0.5:
        damage = rng.choice(["cut off", "bytes flipped", "inserted", "a piece missing", "more behind", "empty"])
        content, rows, written = DAMAGES[damage](content, rng), None, {}
        wrong += f", compressed {damage}"
    return Case(f"{kind} in {suffix}", wrong, {f"{name}{suffix}": content}, f"{name}{suffix}", unit, rows, written)


def _folder_case(rng: random.Random) -> Case:
    files: dict[str, bytes] = {}
    wrongs, unit = [], "pair"
    for number in range(rng.randint(1, 4)):
        _, wrong, name, content, unit, _, _ = _file(rng, rng.choice([TEXTS, TABLES]))
        place = rng.choice(["", "", "data/", "train/", ".hidden/"])
        files[f"d/{place}{number}{name}"] = content
        wrongs.append(wrong)
    for extra in ("README.md", "dataset_info.json", "notes.txt", "empty.jsonl"):
        if rng.random() < 0.1:
            files[f"d/{extra}"] = rng.choice([b"", b"{}", b"# words", rng.randbytes(20)])
    return Case("folder", max(wrongs, key=len), files, "d", unit)


def _memory_case(rng: random.Random) -> Case:
    rows, wrong, unit = _rows(rng, in_memory=True)
    given = [json.loads(as_json(json.dumps(one))) if wrong == "none" else one for one in rows]
    return Case("rows in memory", wrong, {}, "list of dicts", unit, len(given), given=given)


def _saved_case(rng: random.Random) -> Case:
    from datasets import Dataset, DatasetDict
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    rows, wrong, unit = _rows(rng)
    table = Dataset(_table(rows, random.Random(0)))
    whole: Any = DatasetDict({"train": table}) if rng.random() < 0.4 else table
    with tempfile.TemporaryDirectory() as folder:
        whole.save_to_disk(f"{folder}/d")
        paths = sorted(path for path in Path(folder, "d").rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    if wrong == "none" or rng.random() < 0.5:
        damage = rng.choice(
            ["cut off", "bytes flipped", "signs", "inserted", "a piece missing", "empty", "random bytes"]
        )
        name = rng.choice(list(files))
        files[name] = DAMAGES[damage](files[name], rng)
        if rng.random() < 0.2:
            del files[name]
        return Case("saved dataset", damage, files, "d", unit)
    return Case("saved dataset", wrong, files, "d", unit, len(rows))


_MAKERS: dict[str, Callable[[random.Random], Case]] = {
    "text": _text_case,
    "table": _table_case,
    "compressed": _compressed_case,
    "folder": _folder_case,
    "memory": _memory_case,
    "saved": _saved_case,
}
