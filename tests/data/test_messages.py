"""Messages in the layouts that people write them in, as objects or as text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tiltlm.data.examples import Example, Message
from tiltlm.data.files.raw_rows import Row
from tiltlm.data.formats.fields import Fields, RowError
from tiltlm.data.formats.messages import as_chat
from tiltlm.data.formats.notation import decoded, holds_messages
from tiltlm.data.formats.recognition import conversion, recognise_format, require_usable
from tiltlm.errors import DataError

CALL = [{"type": "function", "function": {"name": "clock", "arguments": {"place": "here"}}}]
CALLED = (("tool_calls", json.dumps(CALL)),)


def chat(*messages: object) -> tuple[Message, ...]:
    return as_chat(list(messages), "`chosen`", Fields({}))


def pair(**fields: Any) -> Example:
    row = Row("f:1", fields)
    (only,) = conversion(recognise_format([row])[0], "all")(row).examples
    require_usable(only)
    return only


def problem(*messages: object) -> RowError:
    with pytest.raises(RowError) as caught:
        chat(*messages)
    return caught.value


@pytest.mark.parametrize(
    ("speaker", "role"),
    [
        ("human", "user"),
        ("User", "user"),
        ("gpt", "assistant"),
        ("ASSISTANT", "assistant"),
        ("model", "assistant"),
        ("system", "system"),
        ("developer", "developer"),
        ("observation", "tool"),
        ("tool", "tool"),
    ],
)
def test_speakers_by_any_name(speaker: str, role: str) -> None:
    said = Message(role, "x")
    assert chat({"from": speaker, "value": "x"}, {"role": speaker, "content": "x"}) == (said, said)
    assert chat({"role": speaker, "parts": [{"text": "x"}]}) == (said,)


def test_unknown_speakers() -> None:
    assert "is from `martian`; known are" in problem({"from": "martian", "value": "x"}).detail
    # A chat template may know roles that we do not.
    assert chat({"role": "critic", "content": "x"}) == (Message("critic", "x"),)
    chats = [[{"role": "user", "content": "q"}, {"role": "critic", "content": text}] for text in "ab"]
    with pytest.raises(RowError) as caught:
        pair(chosen=chats[0], rejected=chats[1])
    assert caught.value.reason == "role not known" and "user, critic" in caught.value.detail


@pytest.mark.parametrize(
    "content",
    [
        "Hello there",
        ["Hello", " there"],
        [{"type": "text", "text": "Hello"}, {"type": "text", "text": " there"}],
        [{"type": "text", "value": "Hello there"}],
        [{"type": "text", "text": "Hello there", "image": None}],
        [{"type": "output_text", "text": "Hello there"}],
    ],
)
def test_parts_of_text_are_joined(content: object) -> None:
    assert chat({"role": "user", "content": content}) == (Message("user", "Hello there"),)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "moss.png"},
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "input_audio", "input_audio": {}},
        {"image": "moss.png"},
        {"type": "thinking", "thinking": "Hm"},
    ],
)
def test_other_parts_are_refused_with_their_type(part: dict[str, Any]) -> None:
    found = problem({"role": "user", "content": [{"type": "text", "text": "See"}, part]})
    kind = part.get("type") or "image"
    assert found.reason == "not text alone"
    assert (
        found.detail
        == f"`chosen`, message 1, part 2 is of the type `{kind}`, which is no text: it cannot be trained on"
    )


@pytest.mark.parametrize("content", [{"content": None}, {"content": ""}, {}])
def test_calls_of_tools_need_no_content(content: dict[str, Any]) -> None:
    assert chat({"role": "assistant", "tool_calls": CALL} | content) == (Message("assistant", "", CALLED),)
    answer = {"role": "assistant", "tool_calls": CALL} | content
    found = pair(prompt=[{"role": "user", "content": "q"}], chosen=[answer], rejected="no")
    assert found.chosen == (Message("assistant", "", CALLED),)


def test_calls_as_text_are_read() -> None:
    assert chat({"role": "assistant", "tool_calls": json.dumps(CALL)}) == (Message("assistant", "", CALLED),)
    assert chat({"role": "assistant", "content": "x", "tool_calls": "[]"}) == (Message("assistant", "x"),)


def test_what_is_empty_is_no_call() -> None:
    assert problem({"role": "assistant", "content": None, "tool_calls": []}).detail.endswith(
        "`content` is null, not text"
    )
    assert chat({"role": "assistant", "content": "x", "tool_calls": [], "name": None}) == (Message("assistant", "x"),)


def test_calls_in_sharegpt() -> None:
    one = {"from": "function_call", "value": '{"name": "clock", "arguments": {"place": "here"}}'}
    assert chat(one) == (Message("assistant", "", CALLED),)
    assert chat(one | {"value": f"[{one['value']}]"}) == (Message("assistant", "", CALLED),)
    assert "no JSON with `name`" in problem({"from": "function_call", "value": "clock()"}).detail


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "name", "tool_call_id"])
def test_answers_that_differ_only_beside_their_text_are_not_identical(key: str) -> None:
    sides = {side: [{"role": "assistant", "content": "x", key: side}] for side in ("chosen", "rejected")}
    found = pair(prompt="q", **sides)
    assert found.chosen == (Message("assistant", "x", ((key, '"chosen"'),)),)


def test_half_a_character_beside_the_text_is_told() -> None:
    prompt = [{"role": "user", "content": "q"}]
    with pytest.raises(RowError, match="`chosen` holds half a character"):
        pair(prompt=prompt, chosen=[{"role": "assistant", "content": "x", "name": "\ud800"}], rejected="b")
    with pytest.raises(RowError, match="`tools` holds half a character"):
        pair(prompt=prompt, chosen="a", rejected="b", tools=[{"name": "\ud800"}])


def test_further_keys_are_in_alphabetical_order() -> None:
    message = {"role": "tool", "content": "5", "tool_call_id": "c1", "name": "clock"}
    assert chat(message)[0].further == (("name", '"clock"'), ("tool_call_id", '"c1"'))


# Chats within other things

CHAT = [{"role": "user", "content": "It's 5"}, {"role": "assistant", "content": 'He said "no"\nand left'}]
READ = (Message("user", "It's 5"), Message("assistant", 'He said "no"\nand left'))


@pytest.mark.parametrize(
    "value",
    [
        CHAT,
        json.dumps(CHAT),
        json.dumps(CHAT, indent=2),
        str(CHAT),
        repr(CHAT).replace("}, {", "},\n {"),
        {"messages": CHAT},
        json.dumps({"messages": CHAT, "tools": []}),
        str({"messages": CHAT}),
        {"role": [m["role"] for m in CHAT], "content": [m["content"] for m in CHAT]},
        [json.dumps(message) for message in CHAT],
    ],
)
def test_chats_in_any_notation(value: object) -> None:
    assert as_chat(value, "`chosen`", Fields({})) == READ
    if not isinstance(value, list) or isinstance(value[0], dict):
        assert holds_messages(value)


NOT_READ = [
    str(CHAT).replace("}, {", "}\n {"),
    "array(" + str(CHAT).replace("}, {", "}\n {") + ", dtype=object)",
    json.dumps(CHAT)[:-20],
    str(CHAT)[:-20],
    '[{"role": "user", "content": "It\'s 5"}, {"role": assistant}]',
]


@pytest.mark.parametrize("text", NOT_READ)
@pytest.mark.parametrize("column", ["prompt", "chosen", "rejected"])
def test_a_chat_that_cannot_be_read_is_never_trained_on_as_words(text: str, column: str) -> None:
    fields = {"prompt": "q", "chosen": "a", "rejected": "b"} | {column: text}
    for format in ("preference", "chat", "instruction"):
        row = Row("f:1", fields | {"instruction": fields["prompt"]})
        with pytest.raises(RowError) as caught:
            conversion(format, "all")(row)
        assert "neither JSON nor Python" in caught.value.detail


@pytest.mark.parametrize("text", ["['x', 'y']", "['x' 'y']", "['x'\n 'y']", "array(['x', 'y'], dtype=object)"])
@pytest.mark.parametrize("column", ["chosen", "rejected"])
def test_a_column_of_lists_in_a_programs_notation_is_refused(text: str, column: str) -> None:
    rows = [Row("f:1", {"prompt": "q", "chosen": "a", "rejected": "b"} | {column: text})] * 3
    with pytest.raises(DataError, match=f"every `{column}` is Python's or numpy's text of a list"):
        recognise_format(rows)
    # One answer of many may well be a list.
    plain = Row("f:2", {"prompt": "q", "chosen": "a", "rejected": "b"})
    assert recognise_format([*rows, plain])[0] == "preference"


@pytest.mark.parametrize(
    "text",
    ["[1, 2", "{x}", "[see above] yes", "{'a': 1}", '{"a": [1]}', "[]", "['a' 'b']", "[{}]", "{1: 2", "[" * 5000],
)
def test_text_that_begins_like_a_list_stays_text(text: str) -> None:
    fields = {"prompt": "q", "chosen": text, "rejected": "b"}
    (only,) = conversion("preference", "all")(Row("f:1", fields)).examples
    assert only.chosen == text


def test_texts_side_by_side_are_not_glued_as_python_would() -> None:
    assert decoded("['a' 'b']") == "['a' 'b']" and decoded("['a', 'b']") == ["a", "b"]
    assert decoded("[{'role': 'user', 'content': 'a' 'b'}]") == "[{'role': 'user', 'content': 'a' 'b'}]"
