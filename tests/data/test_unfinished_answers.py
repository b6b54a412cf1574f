"""Answers that were cut before they ended: they are read as such, and nothing is learnt after their last token."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_templates as templates
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import EOS, Template, byte_level, outcomes, pair_tokenizer

from tiltlm.config import DataConfig, HubConfig
from tiltlm.data.conversion import load_examples
from tiltlm.data.examples import Example, Message
from tiltlm.data.files.raw_rows import Row
from tiltlm.data.formats.fields import RowError
from tiltlm.data.formats.recognition import conversion, recognise_format
from tiltlm.data.selection import ReadData
from tiltlm.data.stored_examples import _example, _plain
from tiltlm.data.token_cache import cache_key
from tiltlm.data.tokens.columns_builder import ColumnsBuilder
from tiltlm.data.tokens.mismatched import with_mismatched
from tiltlm.data.tokens.rendering import UNENDED
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.data.tokens.token_store import map_columns, write_columns
from tiltlm.objectives.interface import CHOSEN, REJECTED, Needs, Unit

QUESTION = (Message("user", "Is the answer yes?"),)
WORDS = st.text("abc yesno.,\n\u00e9\u6f22<>|", min_size=1, max_size=24).filter(lambda text: bool(text.strip()))
TEMPLATES: dict[str, Template] = {
    "none": None,
    "turns": templates.PLAIN,
    "trims": templates.TRIMS,
    "default system": templates.DEFAULT_SYSTEM,
    "eos at the end": templates.ENDS_WITH_EOS,
    "parts": templates.PARTS_ONLY,
    "bos in every turn": templates.BOS_EVERY_TURN,
}


def said(text: str) -> tuple[Message, ...]:
    return (Message("assistant", text),)


def chat_of(chosen: str, rejected: str, ended: tuple[bool, bool]) -> Example:
    pair = Example.pair("p:1", QUESTION, said(chosen), said(rejected))
    return dataclasses.replace(pair, ended=ended)


@pytest.mark.parametrize("eos", ["append", "as-is"])
@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=25)
@given(chosen=WORDS, rejected=WORDS, ended=st.tuples(st.booleans(), st.booleans()))
def test_of_a_chat_its_tokens_are_those_of_what_was_asked_and_said(
    name: str, eos: str, chosen: str, rejected: str, ended: tuple[bool, bool]
) -> None:
    tokenizer = byte_level(bos=True, chat_template=TEMPLATES[name])
    whole = pair_tokenizer(tokenizer, eos=eos)
    result = outcomes(whole, chat_of(chosen, rejected, ended))
    finished = outcomes(whole, chat_of(chosen, rejected, (True, True)))
    assert [row.reason for row in result.dropped] == [row.reason for row in finished.dropped]
    if not result.examples:
        return
    (example,), (other,) = result.examples, finished.examples
    asked, _ = whole.render_prompt(QUESTION)
    for sequence, twin, text, ends in zip(example.sequences, other.sequences, (chosen, rejected), ended, strict=True):
        if ends:
            assert np.array_equal(sequence.ids, twin.ids)
            continue
        written = text.strip() if name == "trims" else f" {text}" if name == "none" else text
        alone = whole.encoder.prompt(asked + written)
        assert sequence.ids.tolist() == alone
        assert not sequence.ended and twin.ended
        assert twin.ids.tolist()[: len(alone)] == alone


@pytest.mark.parametrize("bos", [False, True], ids=["without bos", "with bos"])
@given(text=WORDS)
def test_of_text_its_tokens_are_those_of_both_together(bos: bool, text: str) -> None:
    whole = pair_tokenizer(byte_level(bos=bos))
    prompt = "Answer: "
    example = dataclasses.replace(Example("p:1", prompt, (text,), (CHOSEN,)), ended=(False,))
    (found,) = outcomes(whole, example).examples
    (sequence,) = found.sequences
    assert sequence.ids.tolist() == whole.encoder.prompt(prompt + text)
    (ended,) = outcomes(whole, dataclasses.replace(example, ended=None)).examples
    assert ended.sequences[0].ids[-1] == whole.tokenizer.eos_token_id


def test_a_cut_prompt_leaves_an_unfinished_answer_as_it_is() -> None:
    whole = pair_tokenizer(byte_level(chat_template=templates.PLAIN), max_length=40)
    earlier = (*QUESTION, *said("yes"), Message("user", "And no?"))
    example = dataclasses.replace(Example.pair("p:1", earlier, said("no, n"), said("yes")), ended=(False, True))
    (found,) = outcomes(whole, example).examples
    assert found.prompt_tokens_cut > 0
    assert str(whole.tokenizer.decode(found.chosen.ids.tolist())).endswith("<assistant>no, n")
    assert str(whole.tokenizer.decode(found.rejected.ids.tolist())).endswith(f"<assistant>yes{EOS}")


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        (templates.PLAIN.replace("{{ m.content }}", "{{ m.content | upper }}"), said("no")),
        (templates.TOOLS, (Message("assistant", "no", (("tool_calls", '[{"function": {"name": "f"}}]'),)),)),
    ],
    ids=["rewritten", "a call"],
)
def test_where_the_end_cannot_be_told_the_row_is_dropped(template: str, answer: tuple[Message, ...]) -> None:
    example = Example("p:1", QUESTION, (answer,), (CHOSEN,), ended=(False,))
    (row,) = outcomes(pair_tokenizer(byte_level(chat_template=template)), example).dropped
    assert row.reason in (UNENDED, "lost in the chat template")


@pytest.mark.parametrize("name", ["THINKS", "OPENS_THOUGHT", "CLOSES_THOUGHT"])
@pytest.mark.parametrize("text", ["so it is", "<think>\nso it", "<think>\nso\n</think>\n\nit is"])
def test_a_thinking_block_that_nobody_wrote_is_never_learnt(name: str, text: str) -> None:
    whole = pair_tokenizer(byte_level(chat_template=getattr(templates, name)))
    result = outcomes(whole, Example("p:1", QUESTION, (said(text),), (CHOSEN,), ended=(False,)))
    # One template writes a whole thought as it was said; another asks with an empty one, and the rest is the model's.
    kept = (name == "THINKS" and "</think>" in text) or (name == "CLOSES_THOUGHT" and "</think>" not in text)
    assert [row.reason for row in result.dropped] == ([] if kept else [UNENDED])
    for example in result.examples:
        (sequence,) = example.sequences
        asked, _ = whole.render_prompt(QUESTION)
        assert sequence.ids.tolist() == whole.encoder.prompt(asked + text)


@pytest.mark.parametrize("template", [templates.PLAIN, templates.THINKS], ids=["plain", "thinks"])
def test_of_several_messages_the_last_one_alone_is_unfinished(template: str) -> None:
    answer = (*said("yes"), Message("tool", "4"), *said("it is"))
    result = outcomes(
        pair_tokenizer(byte_level(chat_template=template)),
        Example("p:1", QUESTION, (answer,), (CHOSEN,), ended=(False,)),
    )
    assert [row.reason for row in result.dropped] == ([UNENDED] if template == templates.THINKS else [])


def converted(row: dict[str, object], unit: Unit = "pair") -> list[tuple[bool, ...] | None]:
    (name, _), place = recognise_format([Row("f:1", row)], unit), Row("f:1", row)
    result = conversion(name, "all", unit)(place)
    assert not [column for column in result.unused if "ended" in column]
    return [example.ended for example in result.examples]


PAIR: dict[str, object] = {"prompt": "Q", "chosen": "a", "rejected": "b"}
LIST: dict[str, object] = {"prompt": "Q", "answers": ["a", "b", "c"], "rewards": [1, 3, 2]}
KEYED: dict[str, object] = {
    "prompt": "Q",
    "answers": [{"text": "a", "reward": 1, "ended": True}, {"text": "b", "reward": 2, "ended": False}],
}


@pytest.mark.parametrize(
    ("row", "unit", "ended"),
    [
        ({**PAIR, "chosen_ended": False, "rejected_ended": True}, "pair", [(False, True)]),
        ({**PAIR, "chosen_ended": "true", "rejected_ended": "False"}, "pair", [(True, False)]),
        ({**PAIR, "chosen_ended": True, "rejected_ended": 1}, "pair", [None]),
        ({**PAIR, "rejected_ended": 0}, "pair", [(True, False)]),
        ({**PAIR, "chosen_ended": False}, "demonstration", [(False,)]),
        ({**PAIR, "rejected_ended": False}, "demonstration", [None]),
        ({"prompt": "Q", "completion": "a", "label": True, "ended": False}, "completion", [(False,)]),
        ({"prompt": "Q", "completion": "a", "ended": False}, "demonstration", [(False,)]),
        ({**LIST, "ended": [False, True, None]}, "pair", [(True, False), (True, False), (True, True)]),
        ({**LIST, "ended": [False, True, True]}, "list", [(True, True, False)]),
        ({**LIST, "ended": [True, False, True]}, "demonstration", [(False,)]),
        (KEYED, "pair", [(False, True)]),
        (KEYED, "list", [(False, True)]),
    ],
    ids=[
        "pair", "words", "both ended", "one side", "chosen imitated", "rejected left out", "labelled", "demonstration",
        "list as pairs", "list", "best imitated", "keys as pairs", "keys as a list",
    ],
)  # fmt: skip
def test_columns_say_whether_answers_ended(row: dict[str, object], unit: Unit, ended: list[object]) -> None:
    found = converted(row, unit)
    assert [None if one is None or all(one) else one for one in found] == [
        None if isinstance(one, tuple) and all(one) else one for one in ended
    ]


@pytest.mark.parametrize(
    ("row", "unit", "says"),
    [
        ({**PAIR, "chosen_ended": "perhaps"}, "pair", "'perhaps'"),
        ({**PAIR, "rejected": ["b", "c"], "chosen_ended": False}, "pair", "is of a pair"),
        ({**LIST, "ended": [True]}, "pair", "no list of 3"),
        ({**LIST, "chosen_ended": False}, "pair", "is of a pair"),
        ({"prompt": "Q", "completion": "a", "ended": "later"}, "demonstration", "'later'"),
    ],
    ids=["no word", "several pairs", "too few", "list", "demonstration"],
)
def test_what_is_not_understood_is_refused(row: dict[str, object], unit: Unit, says: str) -> None:
    with pytest.raises(RowError, match=says):
        converted(row, unit)


@pytest.mark.parametrize(
    ("values", "endings", "dropped"),
    [
        (["2023-01-02", "2023-01-05", None], [None] * 3, 0),
        ([True, "2023-01-05", False], [None, (False,)], 1),
        ([None, None, None], [None] * 3, 0),
    ],
    ids=["dates", "mostly truths", "nothing"],
)
def test_a_column_of_something_else_drops_no_row(values: list[object], endings: list[object], dropped: int) -> None:
    rows = [{"prompt": f"Q{n}", "completion": "a", "ended": value} for n, value in enumerate(values)]
    found = load_examples(rows, DataConfig(), HubConfig(), "train", "demonstration")
    assert [None if one.ended is None or all(one.ended) else one.ended for one in found.examples] == endings
    assert len(found.dropped) == dropped
    assert ("ended" in (found.source.unused_columns or {})) == isinstance(values[0], str)


def unfinished(ended: tuple[bool, bool] | None = (False, True)) -> Example:
    return Example("p:1", "Q", ("a", "b"), (CHOSEN, REJECTED), ended=ended)


def test_it_is_kept_in_files_of_examples_and_tokens(tmp_path: Path) -> None:
    assert _example(_plain(unfinished())) == unfinished()
    whole = pair_tokenizer(byte_level())
    (example,) = outcomes(whole, unfinished()).examples
    (other,) = outcomes(whole, dataclasses.replace(unfinished(None), id="p:2", prompt="R")).examples
    columns, builder = TokenColumns.of([example, other]), ColumnsBuilder()
    for one in (example, other):
        builder.add(one)
    write_columns(columns, tmp_path / "tokens.arrow")
    ways: dict[str, Callable[[], TokenColumns]] = {
        "mapped": lambda: map_columns(tmp_path / "tokens.arrow"),
        "built": builder.columns,
        "joined": lambda: TokenColumns.joined([columns.take([0]), columns.take([1])]),
    }
    for way in ways.values():
        assert way().ended.tolist() == [0, 1, 1, 1]
        assert [sequence.ended for sequence in way()[0].sequences] == [False, True]
    assert with_mismatched(columns, 32).ended.tolist() == [0, 1, 1, 1, 1, 1, 0, 1]


def test_the_cache_of_tokens_tells_them_apart() -> None:
    tokenizer = pair_tokenizer(byte_level())

    def key(ended: tuple[bool, bool] | None) -> str:
        return cache_key(ReadData([unfinished(ended)], [], [], [], DataConfig(), 0, Needs()), tokenizer)

    assert len({key(None), key((False, True)), key((True, False)), key((False, False))}) == 4
