"""Examples that are kept in a file are those that were taken in, and whoever reads them cannot tell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltlm.config import DataConfig, HubConfig
from tiltlm.data import stored_examples
from tiltlm.data.conversion import load_examples
from tiltlm.data.examples import Example, Message, Text
from tiltlm.data.stored_examples import ExamplesBuilder, JoinedExamples, SomeExamples, StoredExamples, some_of
from tiltlm.errors import DataError
from tiltlm.storage.scratch import ScratchFile

# Half a surrogate too, as JSON may hold one.
texts = st.text(st.characters(codec=None), max_size=8)
messages = st.builds(
    Message, st.sampled_from(["user", "assistant"]), texts, st.just((("tool_calls", "[]"),)) | st.just(())
)
said = texts | st.lists(messages, max_size=3).map(tuple)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    completions: tuple[Text, ...] = tuple(draw(st.lists(said, min_size=1, max_size=3)))
    labels = tuple(draw(st.sampled_from([0, 1])) for _ in completions)
    scores = draw(st.none() | st.just(tuple(0.5 * n for n in range(len(completions)))))
    return Example(draw(texts), draw(said), completions, labels, draw(st.none() | texts), scores)


def stored(given_: list[Example], patch: pytest.MonkeyPatch, in_memory: int = -1) -> StoredExamples:
    patch.setattr(stored_examples, "IN_MEMORY", in_memory)
    builder = ExamplesBuilder()
    for example in given_:
        builder.add(example)
    kept = builder.examples()
    assert isinstance(kept, StoredExamples)
    return kept


@settings(max_examples=100, deadline=None)
@given(given_=st.lists(examples(), min_size=1, max_size=8), at_once=st.integers(1, 200), data=st.data())
def test_they_are_what_was_taken_in(given_: list[Example], at_once: int, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_examples, "_AT_ONCE", at_once)
        kept = stored(given_, patch)
        assert list(kept) == given_ and len(kept) == len(given_)
        assert [kept[number] for number in range(-len(given_), 0)] == given_
        assert list(kept[1:]) == given_[1:] and list(reversed(kept)) == given_[::-1]
        numbers = np.array(data.draw(st.lists(st.integers(0, len(given_) - 1), max_size=6)), dtype=np.int64)
        some = some_of(kept, numbers)
        assert isinstance(some, SomeExamples) and list(some) == some_of(given_, numbers)
        assert list(some[:2]) == list(some)[:2]
        both = JoinedExamples((some, kept))
        assert list(both) == [*some, *given_] == [both[number] for number in range(len(both))]
        assert list(both[1::2]) == list(both)[1::2]


def test_a_number_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = stored([Example.pair("p:1", "Q", "a", "b")], monkeypatch)
    for many in (kept, JoinedExamples((kept,)), SomeExamples(kept, np.array([0]))):
        for number in (1, -2):
            with pytest.raises(IndexError):
                many[number]


def test_few_are_a_list_and_those_that_came_before_the_file_are_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [Example.pair(f"p:{n}", "Question", "yes", "no") for n in range(5)]
    builder = ExamplesBuilder()
    for example in some:
        builder.add(example)
    assert builder.examples() == some
    assert list(stored(some, monkeypatch, in_memory=30)) == some


def test_where_no_file_can_be_made_they_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(stored_examples, "IN_MEMORY", 3)
    monkeypatch.delenv("TILTLM_SCRATCH", raising=False)
    some = [Example.pair(f"p:{n}", "Question", "yes", "no") for n in range(5)]
    builder = ExamplesBuilder()
    for example in some:
        builder.add(example)
    assert builder.examples() == some


def test_no_file_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    rows = [{"prompt": f"Q{n}", "chosen": f"yes {n}", "rejected": "no"} for n in range(9)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = load_examples(tmp_path / "p.jsonl", DataConfig(), HubConfig(), "train")
    monkeypatch.setattr(stored_examples, "IN_MEMORY", 20)
    kept = load_examples(tmp_path / "p.jsonl", DataConfig(), HubConfig(), "train")
    assert isinstance(kept.examples, StoredExamples) and list(kept.examples) == whole.examples
    assert (kept.source, kept.notes, kept.dropped) == (whole.source, whole.notes, whole.dropped)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_disk_that_is_full_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: ScratchFile, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("TILTLM_SCRATCH", str(tmp_path))
    monkeypatch.setattr(stored_examples, "IN_MEMORY", 3)
    monkeypatch.setattr(ScratchFile, "write", full)
    with pytest.raises(DataError, match="TILTLM_SCRATCH") as error:
        ExamplesBuilder().add(Example.pair("p:1", "Question", "yes", "no"))
    assert str(tmp_path) in str(error.value) and "No space left on device" in str(error.value)


def test_what_chats_say_besides_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_examples, "IN_MEMORY", 2000)
    calls = (Message("assistant", "", (("tool_calls", "x" * 3000),)),)
    builder = ExamplesBuilder()
    builder.add(Example.pair("p:1", "Question", calls, "no"))
    assert isinstance(builder.examples(), StoredExamples)
