"""Every column is used or named; columns of other names are found, or mapped by `data.columns`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tiltlm.cli import main
from tiltlm.cli.command_line import parse_config
from tiltlm.config import Config, DataConfig, HubConfig, config_from_dict, load_config
from tiltlm.config.column_names import COLUMNS
from tiltlm.config.validation import validate
from tiltlm.data.conversion import LoadedExamples, load_examples
from tiltlm.data.examples import Message
from tiltlm.data.formats import labelled
from tiltlm.data.formats.columns import _SIDES, value_at
from tiltlm.data.formats.context import QUESTIONS
from tiltlm.data.formats.layouts import RANKED_PROMPTS
from tiltlm.data.formats.ranking import BEST_COLUMNS, LIST_COLUMNS
from tiltlm.data.formats.table import FORMATS
from tiltlm.errors import ConfigError, DataError

TEXTS = {"prompt": "Which?", "chosen": "yes", "rejected": "no"}
USER, YES, NO = (
    {"role": role, "content": text} for role, text in (("user", "Which?"), ("assistant", "yes"), ("assistant", "no"))
)


def load(folder: Path, *rows: dict[str, Any], **settings: Any) -> LoadedExamples:
    path = folder / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_examples(path, DataConfig(**settings), HubConfig(), "train")


def parts(loaded: LoadedExamples) -> tuple[object, object, object]:
    (pair,) = loaded.examples
    return pair.prompt, pair.chosen, pair.rejected


# Unused columns


def test_unused_columns_are_named_with_the_rows_that_hold_something(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        TEXTS | {"id": 1, "source": "x", "blank": " "},
        TEXTS | {"id": 2, "source": None},
        {"id": 3} | TEXTS,
    ]
    loaded = load(tmp_path, *rows)
    assert loaded.source.unused_columns == {"id": 3, "source": 1}
    assert loaded.notes[0] == "Columns not used: `id` (3 rows), `source` (1 row)."


@pytest.mark.parametrize("column", ["context", "documents", "passage", "images"])
def test_an_unused_column_on_which_answers_depend_gets_a_sentence(tmp_path: Path, column: str) -> None:
    loaded = load(tmp_path, TEXTS | {column: "x"})
    assert any(f"`{column}` is not used in 1 row, and the answers may depend on it." in note for note in loaded.notes)


def test_a_dropped_row_says_nothing_of_columns(tmp_path: Path) -> None:
    assert load(tmp_path, TEXTS, TEXTS | {"chosen": "", "id": 1}).source.unused_columns == {}


def test_keys_of_messages_are_used_or_named(tmp_path: Path) -> None:
    answer = YES | {"name": "bob", "timestamp": 7, "loss_weight": 1.0, "empty": None}
    loaded = load(tmp_path, {"prompt": [USER], "chosen": [answer], "rejected": [NO]})
    assert parts(loaded)[1] == (Message("assistant", "yes", (("name", '"bob"'),)),)
    assert loaded.notes == ["Keys of messages not used: `loss_weight` (1 row), `timestamp` (1 row)."]


def test_a_prompt_that_stands_in_the_chats_is_used_and_another_is_not(tmp_path: Path) -> None:
    chats = {"chosen": [USER, YES], "rejected": [USER, NO]}
    assert load(tmp_path, chats | {"prompt": "Which?"}).source.unused_columns == {}
    assert load(tmp_path, chats | {"prompt": "Why?"}).source.unused_columns == {"prompt": 1}


SYSTEM = Message("system", "Be kind.")
ASKED = Message("user", "Which?")


@pytest.mark.parametrize(
    "row",
    [
        TEXTS,
        {"instruction": "Which?", "chosen": "yes", "rejected": "no"},
        {"question": "Which?", "chosen": "yes", "rejected": "no"},
        {"prompt": [USER], "chosen": [YES], "rejected": [NO]},
        {"chosen": [USER, YES], "rejected": [USER, NO]},
        {"messages": [USER], "chosen": "yes", "rejected": "no"},
        {"messages": [USER, YES], "rejected_response": "no"},
        {"conversations": [{"from": "human", "value": "Which?"}], "chosen": "yes", "rejected": "no"},
        {"prompt": "Which?", "completions": ["no", "yes"], "scores": [1, 2]},
        {"prompt": "Which?", "response_0": "no", "response_1": "yes", "better_response_id": 1},
    ],
)
@pytest.mark.parametrize("column", ["system", "system_prompt", "System"])
@pytest.mark.parametrize("value", ["Be kind.", [{"role": "system", "content": "Be kind."}]])
def test_a_system_column_becomes_a_system_turn(tmp_path: Path, row: dict[str, Any], column: str, value: object) -> None:
    loaded = load(tmp_path, row | {column: value})
    expected = ((SYSTEM, ASKED), (Message("assistant", "yes"),), (Message("assistant", "no"),))
    assert parts(loaded) == expected and loaded.source.unused_columns == {}


def test_a_system_turn_that_is_there_is_kept(tmp_path: Path) -> None:
    chat = {"prompt": [{"role": "system", "content": "Be brief."}, USER], "chosen": [YES], "rejected": [NO]}
    loaded = load(tmp_path, chat | {"system": "Be kind."})
    assert parts(loaded)[0] == (Message("system", "Be brief."), ASKED)
    assert loaded.source.unused_columns == {"system": 1}


@pytest.mark.parametrize(
    "history",
    [
        [["Hi", "Hello."]],
        '[["Hi", "Hello."]]',
        [{"role": "user", "content": "Hi"}, {"role": "model", "content": "Hello."}],
    ],
)
@pytest.mark.parametrize("prompt", [{"instruction": "Which?"}, {"prompt": "Which?"}, {"prompt": [USER]}])
def test_history_becomes_turns(tmp_path: Path, history: object, prompt: dict[str, Any]) -> None:
    loaded = load(tmp_path, prompt | {"chosen": "yes", "rejected": "no", "history": history})
    assert parts(loaded)[0] == (Message("user", "Hi"), Message("assistant", "Hello."), ASKED)


TOOL = {"type": "function", "function": {"name": "clock", "parameters": {}}}


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [TOOL["function"]], str([TOOL["function"]])])
@pytest.mark.parametrize("prompt", [{"instruction": "Which?"}, {"prompt": "Which?"}, {"prompt": [USER]}])
def test_tools_are_kept_for_the_template(tmp_path: Path, tools: object, prompt: dict[str, Any]) -> None:
    loaded = load(tmp_path, prompt | {"chosen": "yes", "rejected": "no", "tools": tools})
    assert json.loads(loaded.examples[0].tools or "") == [TOOL] and loaded.source.unused_columns == {}


def test_tools_that_are_none_drop_the_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`tools` is text, not a list of tools"):
        load(tmp_path, {"prompt": [USER], "chosen": [YES], "rejected": [NO], "tools": "a hammer"})


def test_one_row_with_a_system_turn_makes_chats_of_all(tmp_path: Path) -> None:
    loaded = load(tmp_path, TEXTS, TEXTS, TEXTS | {"system": "Be kind."})
    assert [pair.prompt for pair in loaded.examples] == [(ASKED,), (ASKED,), (SYSTEM, ASKED)]
    assert loaded.source.format == "text-chat" and "in 3 of the first 3 rows" in str(loaded.source.format_why)


# Other names


@pytest.mark.parametrize(("chosen", "rejected"), _SIDES)
def test_other_names_of_the_sides(tmp_path: Path, chosen: str, rejected: str) -> None:
    loaded = load(tmp_path, {"prompt": "Which?", chosen: "yes", rejected: "no"})
    assert parts(loaded) == ("Which?", "yes", "no") and f"`{chosen}` as `chosen`" in str(loaded.source.format_why)


@pytest.mark.parametrize("name", ["{}", "{} ", " {}"])
def test_capitals_and_spaces_do_not_matter(tmp_path: Path, name: str) -> None:
    row = {name.format(column.title()): text for column, text in TEXTS.items()}
    assert parts(load(tmp_path, row)) == ("Which?", "yes", "no")
    assert parts(load(tmp_path, {"Prompt": "Which?", "Chosen Response": "yes", "REJECTED-RESPONSE": "no"}))


def test_names_that_do_not_tell_which_is_better_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path, {"prompt": "Which?", "positive": "yes", "other": "no"})
    for word in ("Columns found: `prompt`, `positive`, `other`", "Nearest is `preference`, which lacks `chosen`"):
        assert word in str(caught.value)
    assert "--data.columns chosen=THEIRS rejected=THEIRS" in str(caught.value)


# data.columns

NESTED = {"q": "Which?", "meta": {"best": {"text": "yes"}, "rest": [{"text": "no"}, {"text": "never"}]}, "id": 1}


def test_columns_are_mapped_by_dotted_paths(tmp_path: Path) -> None:
    paths = {"prompt": "q", "chosen": "meta.best.text", "rejected": "meta.rest.0.text"}
    loaded = load(tmp_path, NESTED, columns=paths)
    assert parts(loaded) == ("Which?", "yes", "no") and loaded.source.unused_columns == {"id": 1}
    # A key of all items of a list: several answers.
    assert len(load(tmp_path, NESTED, columns=paths | {"rejected": "meta.rest.text"}).examples) == 2
    # Into JSON text, too.
    written = NESTED | {"meta": json.dumps(NESTED["meta"])}
    assert parts(load(tmp_path, written, columns=paths)) == ("Which?", "yes", "no")


def test_several_columns_are_mapped_to_a_list(tmp_path: Path) -> None:
    row = {"question": {"full_text": "Which?"}, "answer_0": "no", "answer_1": "yes", "score_0": -1.0, "score_1": 1.0}
    paths = {"prompt": "question.full_text", "responses": "answer_0,answer_1", "scores": "score_0,score_1"}
    loaded = load(tmp_path, row, columns=paths)
    assert parts(loaded) == ("Which?", "yes", "no") and loaded.source.unused_columns == {}
    with pytest.raises(DataError, match=r"data\.columns names `answer_0,answer_2`, which no row has"):
        load(tmp_path, row, columns=paths | {"responses": "answer_0,answer_2"})


def test_a_mapped_column_hides_one_of_our_names(tmp_path: Path) -> None:
    loaded = load(tmp_path, TEXTS | {"question": "Why?"}, columns={"prompt": "question"})
    assert parts(loaded)[0] == "Why?" and "prompt" in next(iter(loaded.source.unused_columns or {}))


@pytest.mark.parametrize("name", ["query", "Question", "Instruction"])
def test_a_mapped_column_is_what_it_is_mapped_to_and_nothing_else(tmp_path: Path, name: str) -> None:
    """Although unmapped it would be read under another name of ours."""
    loaded = load(tmp_path, {name: "Which?", "chosen": "yes", "rejected": "no"}, columns={"prompt": name})
    assert parts(loaded) == ("Which?", "yes", "no")
    assert loaded.source.format == "preference" and loaded.source.unused_columns == {}


def test_what_was_found_is_called_as_the_data_call_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Columns found: `query` \(read as `question`\), `best`, `worst`\."):
        load(tmp_path, {"query": "Which?", "best": "yes", "worst": "no"})


@pytest.mark.parametrize("label", ["Thumbs Up", "thumbs-up", "Desirable"])
def test_a_labels_column_may_be_written_otherwise(tmp_path: Path, label: str) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"Prompt": "Which?", "Response": "yes", label: True}))
    loaded = load_examples(tmp_path / "p.jsonl", DataConfig(), HubConfig(), "train", "completion")
    assert loaded.source.format == "labelled" and loaded.source.unused_columns == {}


def test_a_path_that_no_row_has_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    paths = {"prompt": "q", "chosen": "meta.bset.text", "rejected": "meta.rest.0.text"}
    with pytest.raises(
        DataError, match=r"data\.columns names `meta\.bset\.text`, which no row has\. Did you mean `meta\.b"
    ):
        load(tmp_path, NESTED, columns=paths)
    # Also where the rows are read without it.
    with pytest.raises(DataError, match=r"data\.columns names `nowhere`"):
        load(tmp_path, TEXTS, columns={"system": "nowhere"})
    # One that only some rows have is fine.
    assert len(load(tmp_path, TEXTS, TEXTS | {"s": "Be kind."}, columns={"system": "s"}).dropped) == 0


def test_held_out_data_that_has_our_names_needs_no_mapping(tmp_path: Path) -> None:
    """`data.columns` is for both sources, and another person may have made the held-out one."""
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(TEXTS) + "\n")
    mapped = DataConfig(columns={"chosen": "win", "rejected": "lose"})
    loaded = load_examples(path, mapped, HubConfig(), "eval")
    assert parts(loaded) == ("Which?", "yes", "no") and "columns that data.columns maps to" in loaded.notes[0]
    # Where a part of the mapping fits, or for training, a path that leads nowhere is a mistake.
    with pytest.raises(DataError, match="which no row has"):
        load_examples(path, mapped, HubConfig(), "train")
    path.write_text(json.dumps(TEXTS | {"win": "no"}) + "\n")
    with pytest.raises(DataError, match="which no row has"):
        load_examples(path, mapped, HubConfig(), "eval")


def test_an_unknown_name_of_ours_is_an_error_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"`promt` is none of them\. Did you mean `prompt`\?"):
        validate(Config(data=DataConfig(columns={"promt": "q"})))


@pytest.mark.parametrize(
    "names",
    [
        LIST_COLUMNS,
        BEST_COLUMNS,
        RANKED_PROMPTS,
        QUESTIONS,
        [*labelled.LABEL_COLUMNS, *labelled.TURNED_COLUMNS, *labelled.COMPLETION_COLUMNS],
    ],
)
def test_every_column_that_is_looked_for_can_be_mapped_and_written_otherwise(names: Iterable[str]) -> None:
    assert [name for name in names if name not in COLUMNS] == []


def test_every_column_of_a_format_can_be_mapped() -> None:
    unknown = {column for format in FORMATS.values() for needs in format.needs for column in needs} - {*COLUMNS}
    assert not unknown, "add to COLUMNS in src/tiltlm/config/column_names.py"


def test_columns_as_a_flag_in_toml_and_in_a_run(tmp_path: Path) -> None:
    words = ["--data.train", "x", "--data.columns", "prompt=question", "chosen=meta.best", "--data.max-length", "9"]
    config = parse_config(words)
    assert config.data.columns == {"prompt": "question", "chosen": "meta.best"} and config.data.max_length == 9
    path = tmp_path / "c.toml"
    path.write_text('[data]\ntrain = "x"\nmax_length = 9\n[data.columns]\nprompt = "question"\nchosen = "meta.best"\n')
    assert load_config(path) == config == parse_config([str(path)])
    assert parse_config([str(path), "--data.columns", "prompt=q"]).data.columns == {"prompt": "q"}
    assert config_from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize("words", [["prompt"], ["=x"], ["prompt="], ["a", "b"]])
def test_a_flag_of_another_form_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data.columns", *words]) == 2
    assert "OURS=THEIRS" in capsys.readouterr().err


def test_values_at_paths() -> None:
    assert value_at({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert value_at({"a": [{"b": 1}, {"c": 2}]}, "a.b") == [1, None]
    assert value_at({"a": [{"b": 1}]}, "a.c") is None
    assert value_at({"a": "x"}, "a.b") is None
