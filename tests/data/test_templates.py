"""What a chat template makes of a chat: where the completion begins, what is left out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_templates
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import EOS, Outcomes, byte_level, outcomes, pair_tokenizer

from tiltlm.data.examples import Example, Message
from tiltlm.data.tokens.rendering import RenderedExample
from tiltlm.data.tokens.templates import ChatTemplate, TemplateRefusalError, choose_template
from tiltlm.errors import ConfigError

ALL = {name: value for name, value in vars(tiny_templates).items() if name.isupper() and "messages" in str(value)}
# Those that write every message's text of a chat of user and assistant.
FAITHFUL = [
    "PLAIN", "DEFAULT_SYSTEM", "NO_SYSTEM", "ALTERNATES", "TWO_ROLES", "ENDS_WITH_EOS", "TOOLS", "CALLS_AS_TEXT",
    "REASONING_KEY", "PARTS_ONLY", "THINKS", "OPENS_THOUGHT", "CLOSES_THOUGHT", "CUTS_THOUGHT", "CUTS_AND_OPENS",
]  # fmt: skip
CALL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "clock", "arguments": {"place": 'Rome "E"', "hours": 24}},
}
TOOL = {"type": "function", "function": {"name": "clock", "description": "tells the hour"}}


def says(role: str, content: str, **further: object) -> Message:
    return Message(role, content, tuple((key, json.dumps(value)) for key, value in sorted(further.items())))


def rendered(template: str, *pairs: Example) -> Outcomes:
    return outcomes(pair_tokenizer(byte_level(chat_template=template), max_length=4096), *pairs)


def pair_of(
    prompt: tuple[Message, ...], chosen: Message | str, rejected: Message | str, tools: object = None
) -> Example:
    better, worse = ((side if isinstance(side, Message) else says("assistant", side),) for side in (chosen, rejected))
    return Example.pair("p:1", prompt, better, worse, json.dumps(tools) if tools else None)


def only(result: Outcomes) -> RenderedExample:
    assert not result.dropped, result.dropped
    (pair,) = result.rendered
    return pair


def drop(result: Outcomes) -> tuple[str, str]:
    assert not result.examples
    (dropped,) = result.dropped
    assert dropped.id == "p:1"
    return dropped.reason, str(dropped.detail)


def written(template: str, *messages: Message) -> str:
    chat = [{"role": message.role, "content": message.content} for message in messages]
    return str(byte_level(chat_template=template).apply_chat_template(chat, tokenize=False))


QUESTION = (says("user", "Which bird?"),)
DIALOGUE = (says("user", "Hi"), says("assistant", "Hello."), says("user", "Which bird?"))

# Where the completion begins


@pytest.mark.parametrize("prompt", [QUESTION, DIALOGUE])
@pytest.mark.parametrize("name", [name for name in FAITHFUL if name != "PARTS_ONLY"])
@pytest.mark.parametrize(
    "answers", [("Robins.", "Rocks."), ("<b>Robins</b>", "<i>Rocks</i>"), ("The one", "The other")]
)
def test_prompt_and_completion_are_what_the_template_writes(
    name: str, prompt: tuple[Message, ...], answers: tuple[str, str]
) -> None:
    template = ALL[name]
    pair = only(rendered(template, pair_of(prompt, *answers)))
    for completion, answer in zip(pair.completions, answers, strict=True):
        assert pair.prompt + completion == written(template, *prompt, says("assistant", answer))
        assert completion.endswith((f"{answer}{EOS}", f"{answer}{EOS}\n"))
    # The border lies in what asks for an answer, and what is given to a model is what asks.
    assert pair.prompt.endswith(("<assistant>", "<think>\n", "</think>\n\n"))
    asked, _ = pair_tokenizer(byte_level(chat_template=template)).render_prompt(prompt)
    assert pair.question == asked and pair.question.startswith(pair.prompt)
    assert pair.header and pair.prompt[pair.prompt.rindex("<assistant>") :].endswith(pair.header)


@settings(max_examples=80, deadline=None)
@given(
    answers=st.tuples(*[st.text(st.sampled_from("<think>/ \na"), max_size=12)] * 2),
    name=st.sampled_from(["PLAIN", "THINKS", "OPENS_THOUGHT", "CLOSES_THOUGHT", "CUTS_AND_OPENS", "ENDS_WITH_EOS"]),
)
def test_no_answer_moves_the_border_into_a_message(answers: tuple[str, str], name: str) -> None:
    result = rendered(ALL[name], pair_of(QUESTION, *answers))
    for pair in result.rendered:
        assert f"<user>Which bird?{EOS}\n<assistant>".startswith(pair.prompt[: len("<user>Which bird?")])
        assert pair.prompt in pair.question and "<assistant>" in pair.prompt
        assert pair.prompt[pair.prompt.rindex("<assistant>") :] in (
            "<assistant>", "<assistant><think>\n", "<assistant><think>\n\n</think>\n\n",
        )  # fmt: skip


@pytest.mark.parametrize("name", ["PLAIN", "THINKS", "OPENS_THOUGHT", "CLOSES_THOUGHT"])
def test_reasoning_within_an_answer_is_scored_after_one_prompt(name: str) -> None:
    thought, none = "<think>\nA thought.\n</think>\n\nRobins.", "Rocks."
    pair = only(rendered(ALL[name], pair_of(QUESTION, thought, none)))
    texts = [written(ALL[name], *QUESTION, says("assistant", answer)) for answer in (thought, none)]
    assert [pair.prompt + completion for completion in pair.completions] == texts
    assert "A thought." in pair.completions[0] and "Robins." in pair.completions[0]


@pytest.mark.parametrize(("name", "mark"), [("CUTS_THOUGHT", ""), ("CUTS_AND_OPENS", "<think>\n")])
@pytest.mark.parametrize("opened", [True, False])
def test_reasoning_that_the_template_cuts_from_an_answer_is_put_back(name: str, mark: str, opened: bool) -> None:
    begin = "<think>\n" if opened else ""
    answers = [f"{begin}{thought}\n</think>\n\nRobins." for thought in ("Good thought", "Bad thought")]
    result = rendered(ALL[name], pair_of(QUESTION, *answers))
    pair = only(result)
    assert pair.prompt == f"<user>Which bird?{EOS}\n<assistant>{mark}"
    expected = [answer.removeprefix(mark) + f"{EOS}\n" for answer in answers]
    assert [*pair.completions] == expected
    assert any("put back" in remark for remark in pair.remarks)


@pytest.mark.parametrize("name", ["THINKS", "OPENS_THOUGHT", "CLOSES_THOUGHT", "CUTS_AND_OPENS"])
@pytest.mark.parametrize("further", [(True, False), (False, True), (True, True)])
def test_a_completion_may_have_further_turns(name: str, further: tuple[bool, bool]) -> None:
    more = (says("user", "Sure?"), says("assistant", "Quite sure."))
    chosen, rejected = (
        (says("assistant", answer), *(more if goes_on else ()))
        for answer, goes_on in zip(("Robins.", "Rocks."), further, strict=True)
    )
    result = rendered(ALL[name], Example.pair("p:1", QUESTION, chosen, rejected))
    pair = only(result)
    texts = [written(ALL[name], *QUESTION, *side) for side in (chosen, rejected)]
    assert [pair.prompt + completion for completion in pair.completions] == texts
    assert pair.prompt in [f"<user>Which bird?{EOS}\n<assistant>{tail}" for tail in ("", "<think>\n")]


def test_a_prompt_that_is_written_anew_once_it_is_answered_is_dropped() -> None:
    by_answer = "{{ messages[-1].content }}?" + tiny_templates.PLAIN
    reason, detail = drop(rendered(by_answer, pair_of(QUESTION, "Robins.", "Rocks.")))
    assert reason == "prompt rewritten once answered" and "give the data as text" in detail


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages | length }} messages\n" + tiny_templates.PLAIN,
        tiny_templates.PLAIN.replace("<assistant>", "Answer now.<assistant>"),
        tiny_templates.PLAIN.replace(
            "<eos>", "{% if loop.last and add_generation_prompt %} Answer now.{% endif %}<eos>", 1
        ),
        "{% for m in messages[-2:] %}" + tiny_templates.TURN + "{% endfor %}" + tiny_templates.ASKS,
    ],
)
@pytest.mark.parametrize("answers", [("Robins.", "Rocks."), ("Ro", "Rob"), ("<x>", "<y>")])
def test_a_template_may_ask_in_another_way_than_it_writes_answered_chats(
    template: str, answers: tuple[str, str]
) -> None:
    pair = only(rendered(template, pair_of(DIALOGUE, *answers)))
    texts = [written(template, *DIALOGUE, says("assistant", answer)) for answer in answers]
    assert [pair.prompt + completion for completion in pair.completions] == texts
    assert [*pair.completions] == [f"{answer}{EOS}\n" for answer in answers]
    assert pair.question == pair_tokenizer(byte_level(chat_template=template)).render_prompt(DIALOGUE)[0] != pair.prompt


# What is left out


def test_a_lost_role_is_noted_not_dropped() -> None:
    system = (says("system", "Be a pirate."), *QUESTION)
    pair = only(rendered(tiny_templates.TWO_ROLES, pair_of(system, "Robins.", "Rocks.")))
    assert pair.remarks == ("The chat template leaves out the text of system messages",)
    assert not only(rendered(tiny_templates.PLAIN, pair_of(system, "Robins.", "Rocks."))).remarks


def test_a_lost_text_that_stands_elsewhere_is_lost_all_the_same() -> None:
    system = (says("system", "Which bird?"), *QUESTION)
    assert only(rendered(tiny_templates.TWO_ROLES, pair_of(system, "Robins.", "Rocks."))).remarks


@pytest.mark.parametrize("name", ["THINKS", "OPENS_THOUGHT", "CLOSES_THOUGHT", "CUTS_THOUGHT"])
def test_the_reasoning_of_an_earlier_answer_is_noted(name: str) -> None:
    prompt = (says("user", "Hi"), says("assistant", "<think>\nA greeting.\n</think>\n\nHello."), *QUESTION)
    pair = only(rendered(ALL[name], pair_of(prompt, "Robins.", "Rocks.")))
    assert pair.remarks == ("The chat template leaves out the reasoning of assistant messages",)


def test_white_space_and_escapes_are_no_loss() -> None:
    prompt = (says("user", '  "Which"\n\tbird?\n'),)
    as_json = tiny_templates.PLAIN.replace("m.content", "m.content | tojson")
    for template in (tiny_templates.TRIMS, as_json):
        assert not only(rendered(template, pair_of(prompt, ' Robins\n"red" é. ', "Rocks."))).remarks
    reason, detail = drop(rendered(tiny_templates.TRIMS, pair_of(prompt, " Robins.\n", "Robins.")))
    assert reason == "identical completions" and "white space" in detail


@pytest.mark.parametrize(
    ("template", "chosen", "rejected", "what"),
    [
        (
            "PLAIN",
            says("assistant", "Robins.", reasoning_content="Thought."),
            says("assistant", "Rocks."),
            "reasoning_c",
        ),
        (
            "PLAIN",
            says("assistant", "Robins.", reasoning_content="A."),
            says("assistant", "Robins."),
            "reasoning_content",
        ),
        ("PLAIN", says("assistant", "", tool_calls=[CALL]), says("assistant", "Rocks."), "`tool_calls` of assistant"),
        ("TWO_ROLES", says("tool", "12:00"), says("tool", "13:00"), "the text of tool messages"),
        (
            "PLAIN",
            says("assistant", "Robins.", name="a"),
            says("assistant", "Robins.", name="b"),
            "differ only in what",
        ),
    ],
)
def test_what_would_be_trained_on_must_leave_a_trace(
    template: str, chosen: Message, rejected: Message, what: str
) -> None:
    reason, detail = drop(rendered(ALL[template], pair_of(QUESTION, chosen, rejected)))
    assert reason == "lost in the chat template" and what in detail
    reason, _ = drop(rendered(ALL[template], pair_of(QUESTION, rejected, chosen)))
    assert reason == "lost in the chat template"


def test_without_a_template_the_words_are_others() -> None:
    pair = pair_of(QUESTION, says("assistant", "Robins.", reasoning_content="Thought."), "Rocks.")
    (dropped,) = pair_tokenizer(byte_level())([pair]).dropped
    assert "plain dialogue that stands in for a chat template leaves out `reasoning_content`" in str(dropped.detail)


def test_a_part_of_an_answer_that_is_left_out_drops_it() -> None:
    first_line = tiny_templates.PLAIN.replace("{{ m.content }}", "{{ m.content.split('\n')[0] }}")
    reason, detail = drop(rendered(first_line, pair_of(QUESTION, "Robins.\nAnd wrens.", "Rocks.")))
    assert reason == "lost in the chat template" and "a part of the text of assistant messages" in detail


def test_a_template_that_writes_no_text_says_so() -> None:
    reason, detail = drop(rendered(tiny_templates.NOTHING, pair_of(QUESTION, "Robins.", "Rocks.")))
    assert (reason, detail) == ("lost in the chat template", "the template left nothing of the messages' texts")


def test_a_template_that_takes_parts_is_given_parts() -> None:
    pair = only(rendered(tiny_templates.PARTS_ONLY, pair_of(QUESTION, "Robins.", "Rocks.")))
    assert pair.prompt + pair.completions[0] == f"<user>Which bird?{EOS}\n<assistant>Robins.{EOS}\n"


@pytest.mark.parametrize("arguments", [CALL["function"]["arguments"], json.dumps(CALL["function"]["arguments"])])
@pytest.mark.parametrize("name", ["TOOLS", "CALLS_AS_TEXT"])
def test_tools_and_calls_are_given_to_the_template(name: str, arguments: object) -> None:
    call = says(
        "assistant", "", tool_calls=[{"type": "function", "function": {"name": "clock", "arguments": arguments}}]
    )
    pair = only(rendered(ALL[name], pair_of(QUESTION, call, "Rocks.", tools=[TOOL])))
    assert pair.prompt.startswith(f"<system>{json.dumps(TOOL)}{EOS}\n<user>")
    assert "clock" in pair.completions[0] and json.dumps(CALL["function"]["arguments"]) in pair.completions[0]
    assert not pair.remarks


def test_tools_and_keys_that_the_template_does_not_know_are_noted() -> None:
    prompt = (says("user", "Which bird?", name="Ann"),)
    pair = only(rendered(tiny_templates.PLAIN, pair_of(prompt, "Robins.", "Rocks.", tools=[TOOL])))
    assert pair.remarks == (
        "The chat template leaves out the tools",
        "The chat template leaves out `name` of user messages",
    )


def test_reasoning_of_its_own_key_is_scored_where_the_template_knows_it() -> None:
    sides = [says("assistant", "Robins.", reasoning_content=thought) for thought in ("Good.", "Bad.")]
    pair = only(rendered(tiny_templates.REASONING_KEY, pair_of(QUESTION, *sides)))
    assert pair.completions[0] == f"<think>Good.</think>Robins.{EOS}\n" and not pair.remarks


# What is refused


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("{{ raise_exception('No pirates') }}", "No pirates"),
        ("{{ missing.attribute }}", "'missing' is undefined"),
        ("{{ m.content + 1 }}", "TypeError: "),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ 'x'.join(3) }}", "TypeError: "),
    ],
)
def test_what_a_template_raises_belongs_to_its_row(fault: str, words: str) -> None:
    template = "{% for m in messages %}{% if 'pirate' in m.content %}" + fault + "{% endif %}{% endfor %}"
    prompts = [(says("user", text),) for text in ("Hi", "Hi pirate", "Ho")]
    pairs = [
        Example.pair(f"p:{n}", p, (says("assistant", "a"),), (says("assistant", "b"),)) for n, p in enumerate(prompts)
    ]
    result = rendered(template + tiny_templates.PLAIN, *pairs)
    assert [pair.id for pair in result.examples] == ["p:0", "p:2"]
    (dropped,) = result.dropped
    assert (dropped.id, dropped.reason) == ("p:1", "refused by the chat template") and words in str(dropped.detail)


def test_a_template_that_cannot_be_read_refuses_every_row() -> None:
    assert drop(rendered("{% for m in %}", pair_of(QUESTION, "a", "b")))[0] == "refused by the chat template"


def test_named_templates() -> None:
    tokenizer = byte_level(chat_template={"first": tiny_templates.PLAIN, "other": tiny_templates.TRIMS})
    with pytest.raises(ConfigError, match=r"several chat templates \(first, other\).*model\.chat_template"):
        pair_tokenizer(tokenizer)([pair_of(QUESTION, "a", "b")])
    # Text needs no template.
    assert pair_tokenizer(tokenizer)([Example.pair("p:1", "Q:", " a", " b")]).examples
    choose_template(tokenizer, None)
    choose_template(tokenizer, "first")
    assert tokenizer.chat_template == tiny_templates.PLAIN
    assert only(outcomes(pair_tokenizer(tokenizer), pair_of(QUESTION, "a", "b"))).completions[0] == f"a{EOS}\n"


def test_a_template_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "template.jinja"
    path.write_text(tiny_templates.PLAIN)
    tokenizer = byte_level()
    choose_template(tokenizer, str(path))
    assert tokenizer.chat_template == tiny_templates.PLAIN
    with pytest.raises(ConfigError, match="neither a file nor a template of the tokenizer"):
        choose_template(tokenizer, str(tmp_path / "missing"))


def test_a_refusal_has_the_templates_words() -> None:
    template = ChatTemplate(byte_level(chat_template=tiny_templates.NO_SYSTEM))
    with pytest.raises(TemplateRefusalError, match=r"^System role not supported$"):
        template.render([says("system", "x"), *QUESTION])


@settings(max_examples=150, deadline=None)
@given(
    texts=st.tuples(*[st.text(max_size=20) | st.text(st.sampled_from('<think>/ \n\t"\\ßé\u2028a'), max_size=20)] * 4),
    name=st.sampled_from(
        ["PLAIN", "TRIMS", "JSON", "ESCAPED", "PARTS_ONLY", "ENDS_WITH_EOS", "TOOLS", "REASONING_KEY"]
    ),
)
def test_a_template_that_writes_all_loses_nothing(texts: tuple[str, str, str, str], name: str) -> None:
    filters = {"JSON": "m.content | tojson", "ESCAPED": "m.content | e"}
    template = tiny_templates.PLAIN.replace("m.content", filters[name]) if name in filters else ALL[name]
    system, question, chosen, rejected = texts
    result = rendered(template, pair_of((says("system", system), says("user", question)), chosen, rejected))
    assert not [pair.remarks for pair in result.rendered if pair.remarks]
    assert {drop.reason for drop in result.dropped} <= {"identical completions", "empty completion"}
