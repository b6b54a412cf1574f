"""Tokens on disk are found again by content, are what would be made, and are made again where they are damaged."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import CHAT_TEMPLATE, byte_level

from tiltlm.config import Config, DataConfig, RunConfig
from tiltlm.data import token_cache
from tiltlm.data.preparation import PAIRS, PreparedData, prepare_data, read_data
from tiltlm.data.selection import Account
from tiltlm.data.token_cache import cache_key
from tiltlm.data.tokens.names import Names
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.data.tokens.token_store import DamagedError, map_columns, unwrapped, wrapped, write_columns
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.objectives.interface import CHOSEN, REJECTED, Needs

COLUMNS = ("ids", "bounds", "first_scored", "tokens_cut", "labels", "members", "prompt_tokens_cut")
ROWS: list[dict[str, Any]] = [
    {"prompt": f"Question {n % 12}:", "chosen": f" yes {n}", "rejected": " no" * (1 + n % 5)} for n in range(24)
]
BAD: list[dict[str, Any]] = [
    {"prompt": "Q:", "chosen": " yes", "rejected": " no" * 90},
    {"prompt": "Q:", "chosen": " yes", "rejected": " yes<eos>"},
]

sequences = st.tuples(st.lists(st.integers(0, 2**31 - 1), min_size=2, max_size=6), st.integers(0, 3)).map(
    lambda given: TokenizedSequence(np.array(given[0], dtype=np.int32), 1, given[1])
)
examples = st.tuples(st.text(st.characters(codec=None), max_size=4), st.lists(sequences, max_size=3)).map(
    lambda given: TokenizedExample(given[0], tuple(given[1]), (CHOSEN,) * len(given[1]), len(given[1]))
)


def same(first: TokenColumns, second: TokenColumns) -> bool:
    return list(first.names) == list(second.names) and all(
        np.array_equal(getattr(first, name), getattr(second, name))
        and getattr(first, name).dtype == getattr(second, name).dtype
        for name in COLUMNS
    )


# The file


@settings(max_examples=40, deadline=None)
@given(st.lists(examples, max_size=6), st.data())
def test_columns_come_back_from_their_file_as_views_of_it(given_: list[TokenizedExample], data: st.DataObject) -> None:
    columns = TokenColumns.of(given_)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "columns.arrow"
        write_columns(columns, path)
        mapped = map_columns(path)
        assert same(mapped, columns) and isinstance(mapped.names, Names)
        for name in COLUMNS:
            array = getattr(mapped, name)
            assert not array.flags.owndata and not array.flags.writeable
        numbers = data.draw(st.lists(st.integers(0, len(given_) - 1), max_size=8)) if given_ else []
        taken = mapped.take(numbers)
        assert same(taken, columns.take(numbers))
        write_columns(taken, path.with_name("taken.arrow"))
        assert same(map_columns(path.with_name("taken.arrow")), taken)


def test_what_is_no_such_file_is_damaged(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import ipc

    path = tmp_path / "columns.arrow"
    with pytest.raises(OSError, match="columns"):
        map_columns(path)
    for content in (b"", b"ARROW1", b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(DamagedError):
            map_columns(path)
    columns = TokenColumns.of([TokenizedExample("e", (TokenizedSequence(np.arange(4, dtype=np.int32), 1),), (CHOSEN,))])
    write_columns(dataclasses.replace(columns, labels=np.zeros(3, dtype=np.int8)), path)
    with pytest.raises(DamagedError, match="do not fit"):
        map_columns(path)
    batch = pyarrow.record_batch({"ids": [[1, 2]]})
    with ipc.new_file(str(path), batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(DamagedError):
        map_columns(path)


# A selection


def config_of(seed: int = 0, **data: Any) -> Config:
    return Config(run=RunConfig(seed=seed), data=DataConfig(**{"eval_fraction": 0.25, "max_length": 40, **data}))


def prepared(
    folder: Path | None, rows: list[dict[str, Any]], needs: Needs = PAIRS, template: str | None = None, **data: Any
) -> tuple[PreparedData, list[int]]:
    config = config_of(**data)
    advanced: list[int] = []
    tokenizer = ExampleTokenizer(byte_level(chat_template=template), config.data)
    return prepare_data(read_data(config, needs, rows), tokenizer, advanced.append, folder), advanced


def no_tokens(*arguments: object) -> None:
    raise AssertionError("tokenized although it is in the cache")


def as_chats(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows]


def as_labelled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"prompt": row["prompt"], "completion": row["rejected"], "label": n % 2} for n, row in enumerate(rows)]


FORMS: dict[str, tuple[Callable[[list[dict[str, Any]]], list[dict[str, Any]]], Needs]] = {
    "text": (list, Needs()),
    "chats": (as_chats, Needs()),
    "labelled": (as_labelled, Needs(unit="completion")),
    "mismatched": (list, Needs(unit="completion", mismatched=True)),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_found_is_what_would_be_made(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, needs = FORMS[form]
    rows, folder = change([*ROWS, *BAD]), tmp_path / "tokens"
    in_memory, _ = prepared(None, rows, needs, CHAT_TEMPLATE)
    made, _ = prepared(folder, rows, needs, CHAT_TEMPLATE)
    assert [len(list(one.iterdir())) for one in folder.iterdir()] == [3]
    with monkeypatch.context() as patch:
        patch.setattr(ExampleTokenizer, "tokenize", no_tokens)
        found, advanced = prepared(folder, rows, needs, CHAT_TEMPLATE)
    assert sum(advanced) == len(rows)
    for one in (made, found):
        assert one.report == in_memory.report
        assert same(one.train, in_memory.train) and same(one.eval, in_memory.eval)
        assert one.report.quality is not None and one.report.quality == in_memory.report.quality
        assert list(one.eval_rendered) == list(in_memory.eval_rendered)
        assert [text.id for text in one.eval_rendered] == list(one.eval.names)
        assert not one.train.ids.flags.owndata and not one.train.ids.flags.writeable
    assert found.report.dropped.count == (2 if form != "labelled" else 1)


def test_the_key_is_all_that_decides_and_nothing_else() -> None:
    def where(
        rows: list[dict[str, Any]] = ROWS,
        held_out: list[dict[str, Any]] | None = None,
        needs: Needs = PAIRS,
        tokenizer: Any = None,
        terminators: frozenset[int] = frozenset(),
        **settings: Any,
    ) -> str:
        config = config_of(**settings)
        read = read_data(config, needs, rows, held_out)
        return cache_key(read, ExampleTokenizer(tokenizer or byte_level(), config.data, terminators))

    def used_before() -> Any:
        tokenizer = byte_level(pad="<eos>")
        tokenizer(["a", "long text"], padding=True, truncation=True, max_length=3)
        return tokenizer

    def whole_texts() -> Any:
        tokenizer = byte_level()
        tokenizer.split_special_tokens = True
        return tokenizer

    base = where()
    assert where(needs=Needs(reference=False, tokens=True, coupled=True, counts=True)) == base
    assert where(ROWS[8:], ROWS[:8], seed=1) == where(ROWS[8:], ROWS[:8])
    assert where(ROWS[8:], ROWS[:8], seed=1, max_eval_pairs=5) != where(ROWS[8:], ROWS[:8], max_eval_pairs=5)
    assert where(tokenizer=used_before()) == where(tokenizer=byte_level(pad="<eos>"))
    assert where([row | {"further": 1} for row in ROWS]) == where(train="elsewhere.jsonl") == base
    others = [
        where(ROWS[:-1]),
        where(ROWS[::-1]),
        where([*ROWS[:-1], ROWS[-1] | {"rejected": " other"}]),
        where(as_chats(ROWS)),
        where(as_labelled(ROWS), needs=Needs(unit="completion")),
        where([*ROWS[1:]], ROWS[:1]),
        where(needs=Needs(unit="completion")),
        where(needs=Needs(mismatched=True)),
        where(tokenizer=byte_level(bos=True)),
        where(tokenizer=whole_texts()),
        where(tokenizer=byte_level(chat_template=CHAT_TEMPLATE)),
        where(tokenizer=byte_level(chat_template={"one": CHAT_TEMPLATE, "default": CHAT_TEMPLATE})),
        where(tokenizer=byte_level(chat_template="{{ strftime_now('%d') }}")),
        where(terminators=frozenset({5})),
        where(seed=1),
        *(where(**{name: value}) for name, value in OTHER_SETTINGS.items()),
    ]
    assert len({base, *others}) == len(others) + 1


OTHER_SETTINGS: dict[str, Any] = {
    "eval_fraction": 0.5,
    "max_train_pairs": 5,
    "max_eval_pairs": 5,
    "max_length": 41,
    "max_prompt_length": 9,
    "long_completions": "truncate",
    "eos": "as-is",
}


def test_every_setting_of_the_data_is_in_the_key_or_has_no_say() -> None:
    """What is read is in the key itself, so the settings that say what is read need not be."""
    reading = {"train", "source", "eval", "train_split", "eval_split", "subset", "format", "columns", "ranked_pairs"}
    names = {field.name for field in dataclasses.fields(DataConfig)}
    assert set(token_cache._SETTINGS) == set(OTHER_SETTINGS) == names - reading


def test_what_another_revision_or_library_made_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_data(config_of(), Needs(), ROWS)
    tokenizer = ExampleTokenizer(byte_level(), read.data)
    keys = [cache_key(read, tokenizer)]
    with monkeypatch.context() as patch:
        patch.setattr(token_cache, "REVISION", token_cache.REVISION - 1)
        keys.append(cache_key(read, tokenizer))
        made, _ = prepared(tmp_path, ROWS)
    for library in ("ftfy", "regex", "rensa"):
        with monkeypatch.context() as patch:
            patch.setattr(token_cache, "version", lambda name, changed=library: "0" if name == changed else "1")
            keys.append(cache_key(read, tokenizer))
    assert len(set(keys)) == len(keys) == 5
    again, _ = prepared(tmp_path, ROWS)
    assert again.report == made.report and len(list(tmp_path.iterdir())) == 2


def test_an_account_without_the_figures_is_made_anew(tmp_path: Path) -> None:
    """As an earlier version wrote it, should an address ever be the same."""
    made, _ = prepared(tmp_path, ROWS)
    (folder,) = tmp_path.iterdir()
    account = json.loads(unwrapped((folder / "account.json").read_bytes()))
    for missing in ("quality", "findings"):
        changed = json.loads(json.dumps(account))
        del (changed["account"] if missing == "quality" else changed["account"]["quality"])[missing]
        (folder / "account.json").write_bytes(wrapped(json.dumps(changed).encode("ascii")))
        again, _ = prepared(tmp_path, ROWS)
        assert again.report == made.report and made.report.quality is not None


@settings(max_examples=60, deadline=None)
@given(st.builds(Account))
def test_an_account_comes_back_from_its_json(account: Account) -> None:
    plain = json.loads(json.dumps(dataclasses.asdict(account)))
    assert token_cache._built(Account, plain) == account


def test_findings_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [*ROWS, *ROWS[:3], {"prompt": "a\0b donâ€™t", "chosen": " да", "rejected": " no<eos> no"}]
    plain, _ = prepared(None, rows)
    prepared(tmp_path, rows)
    found, _ = prepared(tmp_path, rows)
    assert found.report.quality is not None and found.report.quality == plain.report.quality
    assert len([one for one in found.report.quality.findings if one.count]) >= 5


def test_a_template_that_writes_the_date_is_another_one_tomorrow(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tomorrow(date):
        @classmethod
        def today(cls) -> Tomorrow:
            return cls(2999, 1, 1)

    read = read_data(config_of(), Needs(), ROWS)
    tokenizers = [
        ExampleTokenizer(byte_level(chat_template=text), read.data)
        for text in (CHAT_TEMPLATE, CHAT_TEMPLATE + "{{ strftime_now('%d') }}")
    ]
    before = [cache_key(read, tokenizer) for tokenizer in tokenizers]
    monkeypatch.setattr(token_cache, "date", Tomorrow)
    after = [cache_key(read, tokenizer) for tokenizer in tokenizers]
    assert after[0] == before[0] and after[1] != before[1]


@pytest.mark.parametrize("name", ["train.arrow", "eval.arrow", "account.json"])
@pytest.mark.parametrize("damage", ["turned", "cut", "gone", "empty"])
def test_damage_is_noticed_and_mended(name: str, damage: str, tmp_path: Path) -> None:
    made, _ = prepared(tmp_path, ROWS)
    (folder,) = tmp_path.iterdir()
    content = (folder / name).read_bytes()
    middle = len(content) // 2
    damaged = {
        "turned": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "cut": content[:middle],
        "empty": b"",
    }
    (folder / name).unlink()
    if damage != "gone":
        (folder / name).write_bytes(damaged[damage])
    again, _ = prepared(tmp_path, ROWS)
    assert again.report == made.report and same(again.train, made.train) and same(again.eval, made.eval)
    assert [one.name for one in tmp_path.iterdir()] == [folder.name] and (folder / name).read_bytes() == content


def test_a_cache_that_cannot_be_written_is_noted_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    data, _ = prepared(tmp_path / "file", ROWS)
    plain, _ = prepared(None, ROWS)
    assert same(data.train, plain.train) and (tmp_path / "file").read_text() == "mine"
    assert data.report.notes[:-1] == plain.report.notes
    assert data.report.notes[-1].startswith("The tokens are not kept in the cache (")


def test_a_full_disk_leaves_nothing_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(columns: TokenColumns, path: Path) -> None:
        path.write_bytes(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_cache, "write_columns", full)
    data, _ = prepared(tmp_path, ROWS)
    assert "No space left on device" in data.report.notes[-1] and list(tmp_path.iterdir()) == []


def test_data_that_is_not_enough_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="two are needed"):
        prepared(tmp_path / "tokens", ROWS[:1])
    assert not (tmp_path / "tokens").exists()


def test_labels_and_names_survive(tmp_path: Path) -> None:
    data, _ = prepared(tmp_path, as_labelled(ROWS), Needs(unit="completion"))
    assert set(data.train.labels.tolist()) == {CHOSEN, REJECTED} and data.train.names[0].startswith("row ")
