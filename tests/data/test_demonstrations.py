"""Answers to imitate: plain ones, chosen ones of pairs, the best of lists, and those labelled good; each once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_tokenizers import byte_level

from tiltlm.config import Config, DataConfig, HubConfig, LossConfig
from tiltlm.data.conversion import LoadedExamples, load_examples
from tiltlm.data.examples import Message
from tiltlm.data.preparation import prepare_data, read_data
from tiltlm.data.row_names import row_of
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.errors import ConfigError, DataError
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import CHOSEN, Unit

HI, HELLO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}
AS_CHAT = ((Message("user", "Hi"),), (Message("assistant", "Hello."),))


def load(folder: Path, *rows: dict[str, Any], unit: Unit = "demonstration", **data: Any) -> LoadedExamples:
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_examples(folder / "p.jsonl", DataConfig(**data), HubConfig(), "train", unit)


PLAIN: list[dict[str, Any]] = [
    {"prompt": [HI], "completion": [HELLO]},
    {"prompt": [HI], "completion": "Hello."},
    {"messages": [HI, HELLO]},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
    {"messages": [HI], "response": HELLO},
    {"instruction": "Hi", "input": "", "output": "Hello."},
    {"instruction": "Hi", "context": "", "response": "Hello.", "category": "greeting", "source": "S", "id": "7"},
    {"question": "Hi", "answer": "Hello."},
]


@pytest.mark.parametrize("row", PLAIN)
def test_plain_demonstrations_in_all_their_layouts(tmp_path: Path, row: dict[str, Any]) -> None:
    (example,) = load(tmp_path, row).examples
    assert (example.prompt, *example.completions) == AS_CHAT and example.labels == (CHOSEN,)


@pytest.mark.parametrize("row", [*PLAIN, {"prompt": "2 + 2 = ", "completion": "4"}])
@pytest.mark.parametrize("unit", ["pair", "completion", "list"])
def test_they_are_refused_by_what_needs_more_with_the_objective_that_takes_them(
    tmp_path: Path, row: dict[str, Any], unit: Unit
) -> None:
    for data in ({}, {"format": "demonstration"}):
        with pytest.raises(DataError, match="Each row has one answer") as caught:
            load(tmp_path, row, unit=unit, **data)
        for word in ("--loss.name sft", "--data.columns chosen=THEIRS rejected=THEIRS", "--data.columns label=THEIRS"):
            assert word in str(caught.value)


@pytest.mark.parametrize(
    ("row", "imitated"),
    [
        ({"prompt": "Q:", "chosen": "A", "rejected": "B"}, ["A"]),
        ({"prompt": "Q:", "chosen": ["A", "B"], "rejected": ["C", "D"]}, ["A", "B"]),
        ({"prompt": "Q:", "completions": ["A", "B", "C"], "scores": [1, 3, 2]}, ["B"]),
        ({"prompt": "Q:", "completions": ["A", "B", "C"], "scores": [3, 3, 2]}, ["A"]),
        ({"prompt": "Q:", "completions": ["A", "B", "C"], "ranks": [2, 3, 1]}, ["C"]),
        ({"prompt": "Q:", "completion": "A", "label": True}, ["A"]),
    ],
)
def test_of_preferences_the_better_answers_are_imitated(
    tmp_path: Path, row: dict[str, Any], imitated: list[str]
) -> None:
    loaded = load(tmp_path, row)
    assert [example.completions for example in loaded.examples] == [(text,) for text in imitated]
    assert {example.labels for example in loaded.examples} == {(CHOSEN,)}
    assert {row_of(example.id) for example in loaded.examples} == {"p.jsonl:1"}
    assert len({example.id for example in loaded.examples}) == len(imitated)


def test_answers_labelled_bad_are_left_out_by_name(tmp_path: Path) -> None:
    row: dict[str, Any] = {"prompt": "Q:", "completion": "A"}
    loaded = load(tmp_path, row | {"label": True}, row | {"label": False}, row | {"label": None})
    assert len(loaded.examples) == 1
    assert [(drop.id, drop.reason) for drop in loaded.dropped] == [
        ("p.jsonl:2", "labelled bad"),
        ("p.jsonl:3", "no label"),
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q:", "completions": ["A", "B"]},  # which of them?
        {"prompt": "Q:", "response": "A", "response2": "B"},
        {"messages": [HI]},
        {"text": "A"},
        {"instruction": "Q", "output": ["A", "B"], "chosen": None},
    ],
)
def test_what_has_no_one_answer_is_no_demonstration(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        if load(tmp_path, row).source.format != "demonstration":
            raise DataError("read as something else")


def test_how_lists_are_cut_is_not_asked(tmp_path: Path) -> None:
    row = {"prompt": "Q:", "completions": ["A", "B"], "scores": [1, 2]}
    with pytest.raises(ConfigError, match=r"data\.ranked_pairs has no effect"):
        load(tmp_path, row, ranked_pairs="best-worst")


def test_a_chat_that_goes_on_after_the_answer_is_dropped(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"messages": [HI, HELLO]}, {"messages": [HI, HELLO, HI]})
    assert len(loaded.examples) == 1 and [drop.id for drop in loaded.dropped] == ["p.jsonl:2"]


def test_the_report_speaks_of_demonstrations(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n} + 1 =", "completion": f" {n + 1}"} for n in range(20)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]), encoding="utf-8")
    config = Config(data=DataConfig(train=str(tmp_path / "p.jsonl")), loss=LossConfig("sft"))
    read = read_data(config, OBJECTIVES["sft"].needs)
    prepared = prepare_data(read, ExampleTokenizer(byte_level(), config.data), lambda done: None)
    report = prepared.report
    assert report.train is not None and report.train.rejected_tokens is None and report.train.chosen_longer is None
    assert len(prepared.train) == report.train.pairs and (prepared.train.labels == CHOSEN).all()
    quality = report.quality
    assert quality is not None
    said = " ".join([*report.notes, *(finding.sentence for finding in quality.findings)])
    assert "demonstration" in said and "pair" not in said
    topics = {finding.topic: finding for finding in quality.findings}
    assert topics["duplicate demonstrations"].count == 1 and "contradictory demonstrations" not in topics
