from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltlm.config import DataConfig, HubConfig
from tiltlm.config.column_names import COLUMNS
from tiltlm.data.conversion import load_examples
from tiltlm.data.examples import Example, Message, Text
from tiltlm.data.files.raw_rows import Row
from tiltlm.data.formats.fields import RowError
from tiltlm.data.formats.ranking import RankedPairs
from tiltlm.data.formats.recognition import conversion, recognise_format, require_usable
from tiltlm.data.formats.table import FORMATS
from tiltlm.errors import ConfigError, DataError
from tiltlm.objectives.interface import CHOSEN, REJECTED, Unit


def user(content: str) -> Message:
    return Message("user", content)


def assistant(content: str) -> Message:
    return Message("assistant", content)


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


HELLO = "\n\nHuman: Hi\n\nAssistant:"

ASKED, HELLOS, GOES = (user("Hi"),), (assistant("Hello."),), (assistant("Go."),)

# One row of each format, and the prompt, chosen and rejected it stands for.
EXAMPLES: dict[str, tuple[dict[str, Any], tuple[Text, Text | None, Text | None]]] = {
    "preference": ({"prompt": "2+2 = ", "chosen": "4", "rejected": "5 "}, ("2+2 = ", "4", "5 ")),
    "dialogue": (
        {"chosen": f"{HELLO} Hello.\n\n", "rejected": f"{HELLO} Go away."},
        (HELLO, " Hello.", " Go away."),
    ),
    "chat": (
        {
            "prompt": [said("system", "Be kind."), said("user", "Hi")],
            "chosen": [said("assistant", "Hello.")],
            "rejected": [said("assistant", "Go.")],
        },
        ((Message("system", "Be kind."), user("Hi")), (assistant("Hello."),), (assistant("Go."),)),
    ),
    "text-chat": (
        {"system": "S", "prompt": "Hi", "chosen": "Hello.", "rejected": "Go."},
        ((Message("system", "S"), *ASKED), HELLOS, GOES),
    ),
    "instruction": (
        {"instruction": "Translate", "input": "chat", "output": "x", "chosen": "cat", "rejected": "dog"},
        ((user("Translate\n\nchat"),), (assistant("cat"),), (assistant("dog"),)),
    ),
    "sharegpt": (
        {
            "conversations": [{"from": "system", "value": "S"}, {"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Hello."},
            "rejected": {"from": "gpt", "value": "Go."},
        },
        ((Message("system", "S"), user("Hi")), (assistant("Hello."),), (assistant("Go."),)),
    ),
    "question": (
        {"system": "S", "question": "Hi", "chosen": "Hello.", "rejected": "Go."},
        ((Message("system", "S"), *ASKED), HELLOS, GOES),
    ),
    "messages": (
        {"messages": [said("user", "Hi")], "chosen": "Hello.", "rejected": said("assistant", "Go.")},
        (ASKED, HELLOS, GOES),
    ),
    "swift": (
        {"messages": [said("user", "Hi"), said("assistant", "Hello.")], "rejected_response": "Go."},
        (ASKED, HELLOS, GOES),
    ),
    "openai": (
        {
            "input": {"messages": [said("user", "Hi")]},
            "preferred_output": [said("assistant", "Hello.")],
            "non_preferred_output": [said("assistant", "Go.")],
        },
        (ASKED, HELLOS, GOES),
    ),
    "output-list": ({"instruction": "Hi", "input": "", "output": ["Hello.", "Go."]}, (ASKED, HELLOS, GOES)),
    "shp": ({"history": "Hi", "human_ref_A": "Go.", "human_ref_B": "Hello.", "labels": 0}, (ASKED, HELLOS, GOES)),
    "safe-rlhf": (
        {"prompt": "Hi", "response_0": "Go.", "response_1": "Hello.", "better_response_id": 1},
        (ASKED, HELLOS, GOES),
    ),
    "stack-exchange": ({"question": "Hi", "response_j": "Hello.", "response_k": "Go."}, (ASKED, HELLOS, GOES)),
    "helpsteer3": (
        {"context": [said("user", "Hi")], "response1": "Hello.", "response2": "Go.", "overall_preference": -2},
        (ASKED, HELLOS, GOES),
    ),
    "helpsteer2": (
        {"prompt": "Hi", "response_1": "Go.", "response_2": "Hello.", "preference_strength": 1},
        (ASKED, HELLOS, GOES),
    ),
    "arena": (
        {
            "conversation_a": [said("user", "Hi"), said("assistant", "Go.")],
            "conversation_b": [said("user", "Hi"), said("assistant", "Hello.")],
            "winner": "model_b",
        },
        (ASKED, HELLOS, GOES),
    ),
    "judged": (
        {"prompt": "Hi", "response_a": "Hello.", "response_b": "Go.", "winner": "model_a"},
        (ASKED, HELLOS, GOES),
    ),
    "ranked-chat": (
        {"system": "S", "prompt": "Hi", "completions": ["Go.", "Hello."], "scores": [1, 2]},
        ((Message("system", "S"), *ASKED), HELLOS, GOES),
    ),
    "labelled": ({"prompt": "2+2 = ", "completion": "4", "label": True}, ("2+2 = ", "4", None)),
    "labelled-chat": (
        {"system": "S", "prompt": "Hi", "completion": "Go.", "label": False},
        ((Message("system", "S"), *ASKED), None, GOES),
    ),
    "demonstration": ({"prompt": "2+2 = ", "completion": "4"}, ("2+2 = ", "4", None)),
    "demonstration-chat": (
        {"system": "S", "prompt": "Hi", "completion": "Hello."},
        ((Message("system", "S"), *ASKED), HELLOS, None),
    ),
    "ranked": ({"prompt": "Say: ", "completions": ["bad", "good"], "scores": [1, 2]}, ("Say: ", "good", "bad")),
}


def unit_of(format_name: str) -> Unit:
    """What an objective learns from that takes every example of a format as it is."""
    return "demonstration" if FORMATS[format_name].unit == "demonstration" else "completion"


def csv_bytes(rows: list[dict[str, Any]]) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows({k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows)
    return stream.getvalue().encode()


def parquet_bytes(rows: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


FILES: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "p.json": lambda rows: json.dumps(rows).encode(),
    "p.jsonl": lambda rows: "\n".join(map(json.dumps, rows)).encode(),
    "p.csv": csv_bytes,
    "p.parquet": parquet_bytes,
    "p.jsonl.gz": lambda rows: gzip.compress("\n".join(map(json.dumps, rows)).encode()),
    "p.csv.gz": lambda rows: gzip.compress(csv_bytes(rows)),
}


def only_pair(fields: dict[str, Any], format_name: str | None = None) -> Example:
    row = Row("f:1", fields)
    (pair,) = conversion(format_name or recognise_format([row])[0], "all")(row).examples
    return pair


def sides(example: Example) -> tuple[Text, Text | None, Text | None]:
    """Prompt, chosen and rejected; None where there is no such completion."""
    chosen, rejected = (
        example.completions[example.labels.index(label)] if label in example.labels else None
        for label in (CHOSEN, REJECTED)
    )
    return example.prompt, chosen, rejected


def texts(fields: dict[str, Any], format_name: str | None = None) -> tuple[Text, Text | None, Text | None]:
    return sides(only_pair(fields, format_name))


def reason(fields: dict[str, Any], format_name: str) -> tuple[str, str]:
    with pytest.raises(RowError) as caught:
        for pair in conversion(format_name, "all")(Row("f:1", fields)).examples:
            require_usable(pair)
    return caught.value.reason, caught.value.detail


def changed(format_name: str, **fields: Any) -> dict[str, Any]:
    return EXAMPLES[format_name][0] | fields


@pytest.mark.parametrize("file_name", FILES)
@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_from_every_kind_of_file(tmp_path: Path, format_name: str, file_name: str) -> None:
    fields, expected = EXAMPLES[format_name]
    (tmp_path / file_name).write_bytes(FILES[file_name]([fields | {"extra": "column"}] * 3))
    loaded = load_examples(tmp_path / file_name, DataConfig(), HubConfig(), "train", unit_of(format_name))
    assert loaded.source.format == format_name and loaded.source.rows == 3 and not loaded.dropped
    assert [sides(example) for example in loaded.examples] == [expected] * 3
    assert len({pair.id for pair in loaded.examples}) == 3


def test_every_format_of_the_configuration_is_in_the_table() -> None:
    from typing import get_args

    from tiltlm.config import Format

    assert {"auto", *FORMATS} ^ set(get_args(Format)) == set(), "add to `Format` in src/tiltlm/config/sections.py"


def test_every_format_has_an_example() -> None:
    assert FORMATS.keys() ^ EXAMPLES.keys() == set(), "add a row of it to EXAMPLES above"


@pytest.mark.parametrize("format_name", FORMATS)
def test_each_example_is_recognised_by_its_format_alone(format_name: str) -> None:
    fields = EXAMPLES[format_name][0]
    fitting = [name for name, format in FORMATS.items() if format.recognise(fields)]
    wider = {FORMATS[format_name].takes, FORMATS[FORMATS[format_name].takes or format_name].takes}
    assert [name for name in fitting if name not in wider] == [format_name]


def test_unknown_columns_are_listed_beside_what_is_expected() -> None:
    with pytest.raises(DataError, match=r"(?s)no format.*`question`, `best`.*preference \(`prompt`, .*ranked \("):
        recognise_format([Row("f:1", {"question": "x", "best": "y"})])


def test_ambiguous_columns_are_an_error() -> None:
    row = Row("f:1", changed("preference", instruction="Add"))
    with pytest.raises(DataError, match="several formats: preference, instruction"):
        recognise_format([row])


def test_a_few_odd_rows_do_not_decide_the_format() -> None:
    odd = [Row("f:1", {"prompt": None}), Row("f:2", EXAMPLES["chat"][0])]
    name, why = recognise_format([*odd, *[Row("f:3", EXAMPLES["preference"][0])] * 3])
    assert name == "preference" and "3 of the first 5 rows" in why


@pytest.mark.parametrize("format_name", sorted(set(FORMATS) - {"ranked", "ranked-chat"}))
def test_ranked_pairs_has_no_effect_on_other_formats(format_name: str) -> None:
    with pytest.raises(ConfigError, match="no effect"):
        conversion(format_name, "best-worst", unit_of(format_name))


# Dialogues


def test_the_dialogue_prompt_ends_with_the_last_shared_header() -> None:
    start = f"{HELLO} Hello.\n\nHuman: More\n\nAssistant:"
    assert texts({"chosen": f"{start} yes", "rejected": f"{start} no"}) == (start, " yes", " no")


def test_dialogues_that_part_at_a_user_turn_keep_the_later_turns_in_the_completion() -> None:
    chosen, rejected = f"{HELLO} A\n\nHuman: B\n\nAssistant: C", f"{HELLO} A\n\nHuman: D\n\nAssistant: E"
    assert texts({"chosen": chosen, "rejected": rejected}) == (HELLO, chosen[len(HELLO) :], rejected[len(HELLO) :])


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("\n\nHuman: A\n\nAssistant: x", "\n\nHuman: B\n\nAssistant: x", "dialogues share no prompt"),
        (f"{HELLO} ", f"{HELLO} x", "empty completion"),
        (f"{HELLO} x", f"{HELLO} x\n", "identical completions"),
        ("no header", "at all", "dialogues share no prompt"),
        (None, HELLO, "unreadable row"),
    ],
)
def test_unusable_dialogues(chosen: str, rejected: str, expected: str) -> None:
    assert reason({"chosen": chosen, "rejected": rejected}, "dialogue")[0] == expected


turns = st.lists(st.sampled_from(["\n\nHuman:", "\n\nAssistant:", " yes", " no", "\n", "é", "Assistant:"]), max_size=6)


@given(start=turns, chosen=turns, rejected=turns)
def test_dialogue_prompt_and_completion_are_the_text_again(
    start: list[str], chosen: list[str], rejected: list[str]
) -> None:
    whole = ["".join([HELLO, *start, *end]) for end in (chosen, rejected)]
    pair = only_pair({"chosen": whole[0], "rejected": whole[1]}, "dialogue")
    assert isinstance(pair.prompt, str) and pair.prompt.endswith("\n\nAssistant:")
    for text, completion in zip(whole, (pair.chosen, pair.rejected), strict=True):
        assert (pair.prompt + str(completion)).rstrip() == text.rstrip()
        assert completion == str(completion).rstrip()


# Chats

CHAT = [said("user", "Hi"), said("assistant", "Hello."), said("user", "More")]


def test_chat_completions_may_repeat_the_prompt() -> None:
    fields = {
        "prompt": CHAT,
        "chosen": [*CHAT, said("assistant", "yes")],
        "rejected": [said("assistant", "no")],
    }
    prompt = (user("Hi"), assistant("Hello."), user("More"))
    assert texts(fields) == (prompt, (assistant("yes"),), (assistant("no"),))


@pytest.mark.parametrize("role", ["system", "developer"])
def test_what_the_system_says_in_whole_chats_alone_belongs_to_the_prompt(role: str) -> None:
    whole = [said(role, "Be kind."), *CHAT]
    fields = {
        "prompt": CHAT,
        "chosen": [*whole, said("assistant", "yes")],
        "rejected": [*whole, said("assistant", "no")],
    }
    prompt = (Message(role, "Be kind."), user("Hi"), assistant("Hello."), user("More"))
    assert texts(fields) == (prompt, (assistant("yes"),), (assistant("no"),))
    # Where it differs, the two answers are to different prompts.
    other = [said(role, "Be rude."), *CHAT, said("assistant", "no")]
    assert reason(fields | {"rejected": other}, "chat")[0] == "turns out of order"


@pytest.mark.parametrize("extra", [{}, {"prompt": "More"}, {"prompt": None}])
def test_whole_chats_share_their_prompt(extra: dict[str, Any]) -> None:
    fields = {"chosen": [*CHAT, said("assistant", "yes")], "rejected": [*CHAT, said("assistant", "no")]} | extra
    prompt = (user("Hi"), assistant("Hello."), user("More"))
    assert texts(fields) == (prompt, (assistant("yes"),), (assistant("no"),))


def test_chats_that_part_at_a_user_turn_keep_the_later_turns_in_the_completion() -> None:
    chosen, rejected = ([*CHAT[:2], said("user", word), said("assistant", "x")] for word in ("A", "B"))
    prompt, *completions = texts({"chosen": chosen, "rejected": rejected})
    assert prompt == (user("Hi"),)
    assert completions == [(assistant("Hello."), user(word), assistant("x")) for word in ("A", "B")]


def test_a_chat_that_goes_on_longer_than_the_other() -> None:
    longer = [*CHAT, said("assistant", "yes")]
    prompt, chosen, rejected = texts({"chosen": longer, "rejected": longer[:2]})
    assert prompt == (user("Hi"),) and rejected == (assistant("Hello."),) and chosen is not None and len(chosen) == 3


def test_a_prompt_as_text_is_what_the_user_says() -> None:
    expected = ((user("Hi"),), (assistant("yes"),), (assistant("no"),))
    assert (
        texts({"prompt": "Hi", "chosen": [said("assistant", "yes")], "rejected": [said("assistant", "no")]}) == expected
    )
    assert texts({"prompt": [said("user", "Hi")], "chosen": "yes", "rejected": "no"}) == expected
    # Plain text through the chat template, on request.
    assert texts({"prompt": "Hi", "chosen": "yes", "rejected": "no"}, "chat") == expected


@pytest.mark.parametrize(
    ("fields", "expected", "detail"),
    [
        ({"chosen": CHAT[:2], "rejected": [said("user", "Ho"), CHAT[1]]}, "dialogues share no prompt", "differ"),
        ({"chosen": CHAT[:2], "rejected": CHAT[:2]}, "identical completions", "same"),
        (changed("chat", prompt=CHAT[:2]), "turns out of order", "ends with an assistant turn"),
        (changed("chat", chosen=[said("user", "x")]), "turns out of order", "`chosen` begins with a `user` turn"),
        (changed("chat", chosen=[said("assistant", " \n")]), "empty completion", "`chosen`"),
        (changed("chat", rejected=[]), "empty completion", "`rejected`"),
        (changed("chat", prompt=[said("user", "")]), "empty prompt", "`prompt`"),
        (changed("chat", chosen=[{"role": "assistant"}]), "unreadable row", "message 1: `content` is missing"),
        (changed("chat", chosen=[said("assistant", "a"), 3]), "unreadable row", "message 2 is a number"),
        (changed("chat", rejected=None), "unreadable row", "`rejected` is null"),
        (changed("chat", rejected={"a": 1}), "unreadable row", "message 1: `role` is missing"),
    ],
)
def test_unusable_chats(fields: dict[str, Any], expected: str, detail: str) -> None:
    found = reason(fields, "chat")
    assert found[0] == expected and detail in found[1]


# Texts


@pytest.mark.parametrize(
    ("fields", "expected", "detail"),
    [
        (changed("preference", chosen=" \n"), "empty completion", "`chosen`"),
        (changed("preference", rejected="4"), "identical completions", "same"),
        (changed("preference", prompt=""), "empty prompt", "`prompt`"),
        (changed("preference", rejected=None), "unreadable row", "`rejected` is null"),
        (changed("preference", rejected=7), "unreadable row", "`rejected` is a number, not text"),
        (changed("preference", chosen="\ud800"), "unreadable row", "half a character"),
        ({"prompt": "x", "chosen": "y"}, "unreadable row", "`rejected` is missing"),
    ],
)
def test_unusable_texts(fields: dict[str, Any], expected: str, detail: str) -> None:
    found = reason(fields, "preference")
    assert found[0] == expected and detail in found[1]


@pytest.mark.parametrize("given_input", ["", "  ", None])
def test_an_instruction_without_input(given_input: str | None) -> None:
    assert texts(changed("instruction", input=given_input))[0] == (user("Translate"),)


def test_sharegpt_answers_as_text_or_lists() -> None:
    expected = EXAMPLES["sharegpt"][1]
    assert texts(changed("sharegpt", chosen="Hello.", rejected=[{"from": "gpt", "value": "Go."}])) == expected


def test_sharegpt_speakers_must_be_known() -> None:
    found = reason(changed("sharegpt", conversations=[{"from": "martian", "value": "x"}]), "sharegpt")
    assert found[0] == "unreadable row" and "`martian`" in found[1]


def test_a_completion_that_is_json_itself_stays_text() -> None:
    assert texts(changed("preference", chosen='{"a": [1]}', rejected="[1, 2]"))[1:] == ('{"a": [1]}', "[1, 2]")


# Rankings


def ranked(choice: RankedPairs = "all", **fields: Any) -> list[tuple[str, Text, Text]]:
    pairs = conversion("ranked", choice)(Row("f:1", {"prompt": "P"} | fields)).examples
    return [(pair.id, pair.chosen, pair.rejected) for pair in pairs]


def test_each_better_completion_stands_against_each_worse_one() -> None:
    expected = [("f:1#1>2", "a", "b"), ("f:1#1>3", "a", "c"), ("f:1#2>3", "b", "c")]
    assert ranked(responses=["a", "b", "c"], scores=[3, 2, 1]) == expected
    assert ranked("best-worst", responses=["a", "b", "c"], scores=[3, 2, 1]) == [expected[1]]


@pytest.mark.parametrize(
    "order",
    [
        {"answers": ["a", "b", "c"], "scores": [1, 3.5, 1]},
        {"answers": ["a", "b", "c"], "rewards": [-1, 0, -1]},
        {"answers": ["a", "b", "c"], "ranks": [2, 1, 2]},
        {"answers": [{"text": "a", "score": 1}, {"text": "b", "score": 3}, {"text": "c", "score": 1}]},
        {"answers": [{"response": "a", "rank": 2}, {"response": "b", "rank": 1}, {"response": "c", "rank": 2}]},
    ],
)
def test_scores_order_and_ties_give_no_pair(order: dict[str, Any]) -> None:
    assert ranked(**order) == [("f:1#2>1", "b", "a"), ("f:1#2>3", "b", "c")]
    assert ranked("best-worst", **order) == [("f:1#2>1", "b", "a")]


def test_ranked_completions_of_a_chat() -> None:
    ((_, chosen, rejected),) = ranked(prompt=[said("user", "Hi")], completions=["a", "b"], ranks=[1, 2])
    assert chosen == (assistant("a"),) and rejected == (assistant("b"),)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"completions": [], "scores": []}, "no ranking"),
        ({"completions": ["a", "b"]}, "no order"),
        ({"completions": ["a"], "scores": [1]}, "no ranking"),
        ({"completions": ["a", "b"], "scores": [1, 1]}, "no ranking"),
        ({"completions": ["a", "b"], "scores": [1]}, "unreadable row"),
        ({"completions": ["a", "b"], "scores": None}, "unreadable row"),
        ({"completions": ["a", "b"], "scores": [1, float("nan")]}, "unreadable row"),
        ({"completions": ["a", "b"], "scores": [1, True]}, "unreadable row"),
        ({"completions": ["a", 3], "scores": [1, 2]}, "unreadable row"),
        ({"completions": [{"text": "a", "score": 1}, {"text": "b"}]}, "unreadable row"),
        ({"completions": "ab"}, "unreadable row"),
        ({"completions": ["a", "b"], "scores": [1, 2], "prompt": 5}, "unreadable row"),
        ({"completions": ["a", ""], "scores": [1, 2]}, "empty completion"),
        ({"completions": ["a", "a"], "scores": [1, 2]}, "identical completions"),
    ],
)
def test_unusable_rankings(fields: dict[str, Any], expected: str) -> None:
    assert reason({"prompt": "P"} | fields, "ranked")[0] == expected


# Malformed rows

keys = ["role", "content", "from", "value", "text", "score", "rank", "messages", "tool_calls", "parts", "type", "tools"]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400) | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(keys), inner, max_size=3)
        | inner.map(lambda value: json.dumps(value))
        | inner.map(repr)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    format_name=st.sampled_from(sorted(FORMATS)), fields=st.dictionaries(st.sampled_from(COLUMNS), values, max_size=5)
)
def test_malformed_rows_give_usable_pairs_or_a_row_problem(format_name: str, fields: dict[str, Any]) -> None:
    example = EXAMPLES[format_name][0]
    one_other = [example | {column: value} for column in example for value in fields.values()]
    for values_of in (fields, example | fields, *one_other):
        row = Row("f:1", values_of)
        for known in FORMATS.values():
            assert known.recognise(values_of) in (True, False)
        try:
            pairs = conversion(format_name, "all", unit_of(format_name))(row).examples
            for pair in pairs:
                require_usable(pair)
        except RowError as problem:
            assert problem.reason and problem.detail
        except DataError as problem:
            assert "counted from 0" in str(problem)
        else:
            assert pairs
